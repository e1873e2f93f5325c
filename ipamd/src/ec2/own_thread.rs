//! EC2 calls on a thread of their own.
//!
//! The first call reads the certificates of the machine, and an answer may have hundreds of kilobytes of XML. Either one takes
//! a processor for tens of milliseconds, and an ADD on the same thread would wait for it.

use std::{fmt, io, sync::Arc, thread};

use tokio::runtime::{Builder, Handle};

use super::api::{Call, CallError, CallFuture, Ec2};

/// Makes calls through another client. The thread lives as long as the process.
pub struct OwnThread {
    client: Arc<dyn Ec2>,
    thread: Handle,
}

impl fmt::Debug for OwnThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnThread").finish_non_exhaustive()
    }
}

impl OwnThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn start(client: Arc<dyn Ec2>) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        thread::Builder::new()
            .name("ec2".to_owned())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
        Ok(Self {
            client,
            thread: handle,
        })
    }
}

impl Ec2 for OwnThread {
    fn call(&self, call: Call) -> CallFuture<'_> {
        let (client, action) = (self.client.clone(), call.action());
        Box::pin(async move {
            let called = self.thread.spawn(async move { client.call(call).await });
            called.await.unwrap_or_else(|died| {
                Err(CallError {
                    action,
                    code: None,
                    message: format!("the call ended early: {died}"),
                    // It may have been sent.
                    refused: false,
                })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ec2::api::Reply;

    /// Tells the thread that makes a call, or panics.
    struct Teller(bool);

    impl Ec2 for Teller {
        fn call(&self, call: Call) -> CallFuture<'_> {
            assert!(self.0, "on purpose");
            let here = thread::current().name().unwrap_or_default().to_owned();
            let action = call.action();
            Box::pin(async move {
                Err(CallError {
                    action,
                    code: None,
                    message: here,
                    refused: true,
                })
            })
        }
    }

    async fn called(works: bool) -> CallError {
        let apart = OwnThread::start(Arc::new(Teller(works))).unwrap();
        let vpc = "vpc-1".to_owned();
        let reply: Result<Reply, CallError> = apart.call(Call::DescribeRouteTables { vpc }).await;
        reply.unwrap_err()
    }

    #[tokio::test]
    async fn calls_are_made_on_the_thread() {
        assert_eq!(called(true).await.message, "ec2");
    }

    #[tokio::test]
    async fn a_call_that_panics_may_have_been_sent() {
        let error = called(false).await;
        assert!(error.message.contains("panicked"), "{error}");
        assert!(!error.refused && error.action == "DescribeRouteTables");
    }
}

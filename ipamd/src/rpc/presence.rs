//! Renews the mark by which the plugin's STATUS knows that this daemon serves, or served a moment ago.

use std::path::PathBuf;

use proto::presence;

use crate::pool::driver::Pool;

/// Renews the mark for as long as the pool answers.
pub async fn keep(socket: PathBuf, pool: Pool) {
    let mut failed = false;
    while pool.snapshot().await.is_ok() {
        let marked = presence::mark(&socket);
        if let Err(error) = &marked
            && !failed
        {
            let path = presence::path(&socket);
            let path = path.display();
            tracing::warn!(%path, %error, "the mark for STATUS could not be written");
        }
        failed = marked.is_err();
        tokio::time::sleep(presence::PERIOD).await;
    }
}

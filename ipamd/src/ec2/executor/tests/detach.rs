//! The wait for the end of a detachment.

use super::*;

fn attached() -> Result<Reply, CallError> {
    Ok(Reply::Interfaces(vec![interface("eni-1")]))
}

fn gone() -> Result<Reply, CallError> {
    Ok(Reply::Interfaces(vec![Interface {
        attachment: None,
        ..interface("eni-1")
    }]))
}

fn detach() -> Command {
    let eni = interface("eni-1");
    Command::DetachEni {
        op: Op(1),
        eni: eni.eni,
        mac: Some(eni.mac),
        attachment: AttachmentId::from("eni-attach-1"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_detachment_is_answered_when_ec2_shows_it_done() {
    let answers = vec![Ok(Reply::Done), attached(), attached(), gone()];
    let (executor, ec2) = executor(true, answers);
    let done = executor.run(detach()).await;
    assert!(matches!(done, Ok(Answer::Done)), "{done:?}");
    assert_eq!(ec2.asked.lock().unwrap().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_look_that_fails_does_not_end_the_wait_for_a_detachment() {
    let answers = vec![
        Ok(Reply::Done),
        Err(error("InternalError")),
        Err(error("RequestLimitExceeded")),
        gone(),
    ];
    let (executor, ec2) = executor(true, answers);
    let done = executor.run(detach()).await;
    assert!(matches!(done, Ok(Answer::Done)), "{done:?}");
    let asked = ec2.asked.lock().unwrap();
    let detaches = asked
        .iter()
        .filter(|call| matches!(call, Call::DetachNetworkInterface { .. }));
    assert_eq!(detaches.count(), 1, "asked for once");
}

/// A pod may wait for the slot. The next look would be up to half a minute later.
#[tokio::test(start_paused = true)]
async fn the_end_of_the_link_hastens_the_next_look() {
    let mut answers = vec![Ok(Reply::Done)];
    answers.extend((0..5).map(|_| attached()));
    answers.push(gone());
    let (executor, ec2) = executor(true, answers);
    let begun = tokio::time::Instant::now();
    // Five looks: after 1, 3, 7, 15 and 31 s. The sixth is due after 61 s.
    let links = async {
        tokio::time::sleep(Duration::from_secs(40)).await;
        executor.link_gone(OUR_MAC);
        tokio::time::sleep(Duration::from_secs(3)).await;
        let asked = ec2.asked.lock().unwrap().len();
        assert_eq!(asked, 6, "another link is no sign");
        executor.link_gone(interface("eni-1").mac);
    };
    let (done, ()) = tokio::join!(executor.run(detach()), links);
    assert!(matches!(done, Ok(Answer::Done)), "{done:?}");
    assert!(begun.elapsed() < Duration::from_secs(50));
}

/// EC2 may be slower than the kernel.
#[tokio::test(start_paused = true)]
async fn the_end_of_the_link_is_not_the_end_of_the_detachment() {
    let answers = vec![Ok(Reply::Done), attached(), attached(), gone()];
    let (executor, ec2) = executor(true, answers);
    let link = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        executor.link_gone(interface("eni-1").mac);
    };
    let (done, ()) = tokio::join!(executor.run(detach()), link);
    assert!(matches!(done, Ok(Answer::Done)), "{done:?}");
    assert_eq!(ec2.asked.lock().unwrap().len(), 4);
}

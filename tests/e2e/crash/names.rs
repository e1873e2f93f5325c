//! A kernel that renames no link in use (before Linux 6.2): a pod's next sandbox starts under a name of its own, and gets the
//! pod's name as soon as it is free.

use std::{io, net::IpAddr, time::Duration};

use datapath::{
    netlink::Socket,
    pod::{self, own_name},
};
use lab::{
    crash::{
        setup::Setup,
        tracer::{Boundary, Injection, Side},
    },
    node::{Pod, host_link},
    traffic::ping::ping,
    wait::eventually,
};
use nix::errno::Errno;

use crate::{
    crash::common::{sandbox, succeeded},
    suite::{Outcome, trials},
};

trials!(a_kernel_that_renames_no_link_in_use_gives_the_name_when_it_is_free);

const LIMIT: Duration = Duration::from_secs(20);
const ARGS: &str = "IgnoreUnknown=1;K8S_POD_NAMESPACE=lab;K8S_POD_NAME=web-0";

fn add(setup: &Setup, id: &str) -> io::Result<Pod> {
    let pod = sandbox(setup, id)?;
    let add = setup.node.invocation("ADD", id, Some(&pod.path));
    let added = add.variable("CNI_ARGS", ARGS).run(setup.node.netns())?;
    let added = succeeded(Some(added))?;
    Ok(Pod { added, ..pod })
}

/// Which address is routed over the link with this name.
fn behind(setup: &Setup, name: &str) -> io::Result<Option<IpAddr>> {
    let links = setup
        .node
        .netns()
        .run(|| pod::list(&mut Socket::open()?))?
        .map_err(io::Error::other)?;
    let named = links.into_iter().find(|link| link.name == name);
    Ok(named.and_then(|link| link.address))
}

/// Renaming a link that is up. One that is set down before is renamed in the same datagram.
fn renames_in_use(boundary: &Boundary) -> bool {
    boundary.effect.starts_with("host renamelink") && boundary.side == Side::Before
}

fn a_kernel_that_renames_no_link_in_use_gives_the_name_when_it_is_free() -> Outcome {
    let mut setup = Setup::new("t3.small", &[("IP_COOLDOWN_PERIOD", "900")])?;
    setup.await_free(3)?;
    let busy = Injection::Refuse(Errno::EBUSY);
    let trace = setup.beset(&renames_in_use, busy, |setup| {
        let host = setup.node.netns();
        let answers = |pod: &Pod| ping(host, None, pod.address(), LIMIT).map(|got| got.is_some());
        let old = add(setup, "old")?;
        let name = host_link(&old);
        let young = add(setup, "young")?;
        assert_eq!(
            host_link(&young),
            own_name("eni", "hawser aws-cni/young/eth0")
        );
        assert!(answers(&old)? && answers(&young)?, "{}", setup.node.log());
        assert_eq!(behind(setup, &name)?, Some(old.address()));

        let (gone, other) = (old.address(), young.address());
        setup.node.delete_pod(old)?;
        let taken = || behind(setup, &name).is_ok_and(|found| found == Some(other));
        assert!(eventually(LIMIT, taken), "{}", setup.node.log());
        assert!(answers(&young)?, "{}", setup.node.log());
        let silence = Duration::from_millis(300);
        assert!(ping(host, None, gone, silence)?.is_none());
        let check = setup.node.invocation("CHECK", "young", Some(&young.path));
        let checked = check
            .conf("prevResult", young.added.json.clone())
            .run(host)?;
        assert!(checked.succeeded(), "{checked:?}");

        // A link that is no longer used is set down and renamed: the next sandbox need not wait for its removal.
        setup.node.delete_pod(young)?;
        let next = add(setup, "next")?;
        assert_eq!(host_link(&next), name);
        assert!(answers(&next)?, "{}", setup.node.log());
        Ok(())
    })?;
    assert!(trace.struck >= 2, "the kernel refused nothing: {trace:?}");
    Ok(())
}

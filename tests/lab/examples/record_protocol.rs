//! Records the messages between plugin and daemon of this release into the directory of the only argument: for
//! `tests/fixtures/protocol-vN`, once per release that changes the contract. Recorded files are never changed.

use std::{
    fs, io,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::ExitCode,
};

use lab::{
    Lab,
    node::{Node, Pod, occupy, plugin::Invocation},
    wire::recording_proxy,
};
use serde_json::json;
use stdout::{errln, outln};
use vpc_sim::SimConfig;

fn main() -> ExitCode {
    if let Err(why) = lab::sandbox::enter() {
        errln!("record_protocol: {why}");
        return ExitCode::FAILURE;
    }
    let Some(directory) = std::env::args_os().nth(1).map(PathBuf::from) else {
        errln!("record_protocol: name a directory");
        return ExitCode::from(2);
    };
    let recorded = record(&directory).map(|()| ExitCode::SUCCESS);
    stdout::ended("record_protocol", recorded)
}

fn record(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[])?;
    let recorder = Recorder {
        node: &node,
        directory,
        proxy: lab.dir().join("proxy.sock"),
    };
    let (netns, path) = node.sandbox("recorded")?;
    let verb = |verb| node.invocation(verb, "recorded", Some(&path));
    let added = recorder.keep("add", &verb("ADD"))?;
    let pod = Pod {
        id: "recorded".to_owned(),
        netns,
        path: path.clone(),
        asked: serde_json::Value::Null,
        added,
    };
    let previous = pod.added.json.clone();
    recorder.keep("check", &verb("CHECK").conf("prevResult", previous))?;
    let known = json!([{ "containerID": "recorded", "ifname": "eth0" }]);
    let version = |verb: &str| {
        let invocation = node.invocation(verb, "", None);
        invocation.conf("cniVersion", json!("1.1.0"))
    };
    let gc = version("GC").conf("cni.dev/valid-attachments", known);
    recorder.keep("gc", &gc)?;
    recorder.keep("status", &version("STATUS"))?;
    recorder.keep("del", &verb("DEL"))?;
    let (netns, path) = node.sandbox("occupied")?;
    netns.run(|| occupy("eth0"))?.map_err(io::Error::other)?;
    let refused = node.invocation("ADD", "occupied", Some(&path));
    recorder.keep("add-refused", &refused)?;
    recorder.keep_inspect()
}

struct Recorder<'a> {
    node: &'a Node,
    directory: &'a Path,
    proxy: PathBuf,
}

impl Recorder<'_> {
    fn keep(&self, name: &str, invocation: &Invocation) -> io::Result<lab::node::plugin::Outcome> {
        let invocation = invocation.clone().conf("socket", json!(self.proxy));
        self.recorded_exchange(name, || invocation.run(self.node.netns()))
    }

    fn keep_inspect(&self) -> io::Result<()> {
        let snapshot =
            self.recorded_exchange("inspect", || lab::node::inspect::inspect(&self.proxy))?;
        outln!("inspect: {} ENIs", snapshot.enis.len())?;
        Ok(())
    }

    fn recorded_exchange<T>(
        &self,
        name: &str,
        work: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        fs::remove_file(&self.proxy).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        let proxy = UnixListener::bind(&self.proxy)?;
        let socket = self.node.socket();
        std::thread::scope(|scope| {
            let recorded_exchange = scope.spawn(move || recording_proxy::pass_on(&proxy, &socket));
            let done = work()?;
            let exchange = recorded_exchange
                .join()
                .map_err(|_| io::Error::other("the proxy panicked"))??;
            outln!(
                "{name}: {} + {} bytes",
                exchange.request.len(),
                exchange.reply.len()
            )?;
            fs::write(
                self.directory.join(format!("{name}.request")),
                exchange.request,
            )?;
            fs::write(self.directory.join(format!("{name}.reply")), exchange.reply)?;
            Ok(done)
        })
    }
}

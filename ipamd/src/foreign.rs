//! Bytes from outside through everything of the daemon's that reads them, for fuzzing and for the tests that replay its
//! corpus. One file each, so that a fuzz target can be built of little more than what it is about. What EC2 answers is
//! mangled here too, without guidance: the client that reads it is slow to build for fuzzing.

mod ec2;
mod imds;
mod rpc;
mod store;

use self::{imds::imds, rpc::rpc, store::store};

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let all = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus");
    let files = std::fs::read_dir(format!("{all}/{target}")).unwrap();
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no corpus");
    paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

fn replay(target: &str, read: impl Fn(&[u8])) {
    for input in corpus(target) {
        read(&input);
    }
}

#[test]
fn ec2s_answers_harm_nothing_also_when_mangled() {
    const MANGLED: u64 = 3000;
    let (client, inputs) = (ec2::Client::new(), corpus("ec2"));
    for input in &inputs {
        client.read(input);
    }
    for seed in 0..MANGLED {
        client.read(&ec2::mangled(&inputs, seed));
    }
}

#[test]
fn the_metadata_corpus_harms_nothing() {
    replay("imds", imds);
}

#[test]
fn the_rpc_corpus_harms_nothing() {
    replay("rpc", rpc);
}

#[test]
fn the_store_corpus_harms_nothing() {
    replay("store", store);
}

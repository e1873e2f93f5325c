//! A node in a cluster: the lab's API server in the node's namespace.

use std::{io, net::TcpListener};

use lab::{fakes::api_server::ApiServer, node::Node};

/// The name of its Node.
pub const NAME: &str = "lab-node";

/// Serves the Node at `address` of the node's namespace.
pub fn serve(node: &Node, address: &str) -> io::Result<ApiServer> {
    let listener = node.netns().run(|| TcpListener::bind(address))??;
    ApiServer::start(listener, NAME)
}

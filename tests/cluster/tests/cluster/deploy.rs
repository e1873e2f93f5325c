//! What `deploy/` has, without a cluster: the chart, the image, the policies and the examples.
//!
//! May use the programs of the cluster, and an API server of its own. Must not know nodes or the steps of the cluster test.

mod chart;
mod examples;
mod iam;
mod image;

use libtest_mimic::Trial;

pub fn trials() -> Vec<Trial> {
    let trials = [
        chart::trials(),
        examples::trials(),
        iam::trials(),
        image::trials(),
    ];
    trials.into_iter().flatten().collect()
}

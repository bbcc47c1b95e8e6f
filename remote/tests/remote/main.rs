//! Links to other machines, and a cluster that is made of this one.

mod cluster;
mod fates;
mod routers;
mod rpc;
#[path = "../../../tests/support/mod.rs"]
mod support;
mod tls;
mod zeromq;

#[path = "../../../examples/count_words/count.rs"]
mod count;
#[path = "../../examples/count_words_cluster/over_rpc.rs"]
mod over_rpc;
#[path = "../../examples/tls/secure.rs"]
mod secure;
#[path = "../../examples/count_words_cluster/work.rs"]
mod work;

use std::process::ExitCode;

/// As in the example.
type Ask = Box<dyn FnMut(&work::Job) -> Result<u64, Box<dyn std::error::Error>> + Send>;

fn main() -> ExitCode {
    support::run([
        cluster::trials(),
        fates::trials(),
        routers::trials(),
        rpc::trials(),
        tls::trials(),
        zeromq::trials(),
    ])
}

//! Channels through TLS, with rustls: both sides show a certificate that the other one knows.
//!
//! ```text
//! cargo run -p ipc-remote --example tls
//! ```

mod secure;

use std::net::TcpListener;

use ipc::{Link, Receiver, Sender, TcpOptions};

use secure::{Result, accept, connect, identity};

/// Runs over any link.
fn shout(jobs: Receiver<String, impl Link>, results: Sender<String, impl Link>) -> ipc::Result<()> {
    for job in jobs.iter() {
        results.send(job?.to_uppercase())?;
        results.flush()?;
    }
    results.close()
}

fn main() -> Result<()> {
    let (master, worker) = (identity("master")?, identity("worker")?);
    let (master_is, worker_is) = (master.certificate.clone(), worker.certificate.clone());
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    // The other machine.
    let child = ipc::fork((), move |()| -> std::result::Result<(), String> {
        let link = connect(&TcpOptions::new(), address, worker, &master_is).map_err(|error| error.to_string())?;
        shout(Receiver::new(link.reader), Sender::new(link.writer)).map_err(|error| error.to_string())
    })?;

    let link = accept(&TcpOptions::new(), listener.accept()?.0, master, &worker_is)?;
    let (jobs, results) = (Sender::new(link.writer), Receiver::<String, _>::new(link.reader));
    let mut longest = 0;
    for number in 0..1000 {
        let len = if number == 500 { 1_000_000 } else { number };
        jobs.send("x".repeat(len))?;
        jobs.flush()?;
        let answer = results.recv()?.ok_or("the worker has left")?;
        assert_eq!(answer, "X".repeat(len));
        longest = longest.max(answer.len());
    }
    jobs.close()?;
    assert_eq!(results.recv()?, None); // EOF, and TLS has said so
    assert!(child.wait()?.success());
    println!("1000 answers, the longest of {longest} bytes");
    Ok(())
}

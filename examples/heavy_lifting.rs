//! Messages both ways: the parent hands out work, the child answers each order.

use std::process::ExitCode;

fn main() -> ipc::Result<ExitCode> {
    let pair = ipc::datagram_pair()?;

    let child = ipc::fork(pair.child, |socket| -> ipc::Result<()> {
        // Until the parent closes its end.
        while let Some(instruction) = socket.recv_vec()? {
            let answer = [&instruction[..], b" accomplished!"].concat();
            socket.send(&answer)?;
        }
        Ok(())
    })?;

    let orders = ["Heavy lifting", "Heavy lifting", "Feather lifting", "Feather lifting"];
    for order in orders {
        pair.parent.send(order.as_bytes())?;
    }
    for _ in orders {
        match pair.parent.recv_vec()? {
            Some(answer) => println!("{}", String::from_utf8_lossy(&answer)),
            None => break, // the child is gone, and its status says why
        }
    }
    pair.parent.close()?;
    let status = child.wait()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

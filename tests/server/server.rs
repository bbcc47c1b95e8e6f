use crate::support::{self, Trial, exit_code};
use ipc::{Error, ForkServer, PipeWriter, pipe};

pub fn trials() -> Vec<Trial> {
    support::trials![a_worker_has_its_message_and_ends]
}

fn a_worker_has_its_message_and_ends() {
    let server = ForkServer::start(|message: Vec<u8>, mut ends: ipc::Received| -> ipc::Result<u8> {
        ends.take::<PipeWriter>()?.write_atomic(&message)?;
        Ok(7)
    })
    .unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (reader, writer) = pipe().unwrap();
            let child = server.fork(b"job 7", writer).unwrap();
            assert_eq!(std::io::read_to_string(reader).unwrap(), "job 7");
            assert_eq!(exit_code(&child), 7);
        });
    });
}

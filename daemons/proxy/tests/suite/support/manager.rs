//! The sockets as the service manager holds them, and the manager that starts a helper when one is
//! called.

use super::proxy::Heard;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use temps_proxy::config::Settings;
use temps_proxy::daemon::{self, Duty, HTTP, HTTPS, Start};
use temps_proxy::handover::sockets;
use temps_proxy::store::Store;
use temps_unit::exit::Exit;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Listening sockets; copies are the same sockets.
pub struct Sockets {
    pub http: TcpListener,
    pub https: TcpListener,
    pub control: UnixListener,
    pub handover: UnixListener,
}

impl Sockets {
    pub fn control(state: &Path) -> PathBuf {
        state.join("control.sock")
    }

    pub fn handover(state: &Path) -> PathBuf {
        state.join("handover.sock")
    }

    pub fn bind(state: &Path) -> Self {
        let tcp = || TcpListener::bind("127.0.0.1:0").unwrap();
        let unix = |path: PathBuf| {
            let _ = std::fs::remove_file(&path);
            UnixListener::bind(&path).unwrap()
        };
        Self {
            http: tcp(),
            https: tcp(),
            control: unix(Self::control(state)),
            handover: unix(Self::handover(state)),
        }
    }

    pub fn copy(&self) -> Self {
        Self {
            http: self.http.try_clone().unwrap(),
            https: self.https.try_clone().unwrap(),
            control: self.control.try_clone().unwrap(),
            handover: self.handover.try_clone().unwrap(),
        }
    }
}

/// Starts one helper at a time, whenever somebody waits at its socket. Ends with its value.
pub struct Manager {
    started: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Manager {
    pub fn start(sockets: &Sockets, settings: Settings, state: &Path) -> Self {
        let (sockets, state) = (sockets.copy(), state.to_owned());
        let started = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&started);
        let task = tokio::spawn(async move {
            loop {
                called(&sockets).await;
                count.fetch_add(1, Ordering::SeqCst);
                let exit = helper(&sockets, settings.clone(), &state).await;
                assert_eq!(exit, Exit::Success);
            }
        });
        Self { started, task }
    }

    pub fn started(&self) -> usize {
        self.started.load(Ordering::SeqCst)
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits until somebody waits at the helper's socket.
async fn called(sockets: &Sockets) {
    // In slices, so that the end of a test is not waited for.
    let slice = PollTimeout::from(20_u8);
    let is_called = || {
        let door = sockets.handover.try_clone().unwrap();
        tokio::task::spawn_blocking(move || {
            let mut wanted = [PollFd::new(door.as_fd(), PollFlags::POLLIN)];
            poll(&mut wanted, slice).unwrap() == 1
        })
    };
    while !is_called().await.unwrap() {}
}

/// A helper from its start to its end.
async fn helper(sockets: &Sockets, settings: Settings, state: &Path) -> Exit {
    let listener = sockets.handover.try_clone().unwrap();
    let called = tokio::task::spawn_blocking(move || (sockets::receive(&listener), listener));
    let (passed, listener) = called.await.unwrap();
    let (mut passed, caller) = passed.unwrap();
    let store = Store::new(state);
    let turn = tokio::task::spawn_blocking(move || store.turn());
    let start = Start {
        http: vec![passed.take_tcp(HTTP[0]).unwrap()],
        https: vec![passed.take_tcp(HTTPS[0]).unwrap()],
        duty: Duty::Helper {
            listener,
            caller,
            turn: Arc::new(turn.await.unwrap().unwrap()),
        },
        settings,
        problem: Arc::default(),
        state: state.to_owned(),
    };
    let heard = Arc::new(Heard::default());
    daemon::serve(start, heard, CancellationToken::new(), None).await
}

//! A change whose caller does not wait for it.

use crate::support::started;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use temps_ipc::{Code, Fault};
use tokio::time::{sleep, timeout};

#[tokio::test(start_paused = true)]
async fn a_change_whose_caller_hung_up_is_done_before_the_daemon_ends() {
    let (_host, running) = started();
    let done = Arc::new(AtomicBool::new(false));
    let change = {
        let done = Arc::clone(&done);
        async move {
            sleep(Duration::from_secs(5)).await;
            done.store(true, Ordering::SeqCst);
            Ok(())
        }
    };
    let caller = running.engine.carry_out(change);
    let hung_up = timeout(Duration::from_secs(1), caller).await;
    assert!(hung_up.is_err());
    running.stop().await;
    assert!(done.load(Ordering::SeqCst));
}

#[tokio::test(start_paused = true)]
async fn a_defect_in_a_change_is_an_answer() {
    let (_host, running) = started();
    let change = async { panic!("on purpose") as Result<(), Fault> };
    let fault = running.engine.carry_out(change).await.unwrap_err();
    assert_eq!(fault.code, Code::Internal);
}

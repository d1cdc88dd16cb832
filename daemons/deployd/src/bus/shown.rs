//! What an object of the bus shows: replaced as a whole, read a part at a time.

use std::sync::{Mutex, PoisonError};

pub(super) struct Shown<T>(Mutex<T>);

impl<T> Shown<T> {
    pub(super) fn new(shape: T) -> Self {
        Self(Mutex::new(shape))
    }

    pub(super) fn set(&self, shape: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = shape;
    }

    pub(super) fn get<P>(&self, part: impl FnOnce(&T) -> P) -> P {
        part(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

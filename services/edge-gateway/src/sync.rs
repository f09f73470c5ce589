//! Locks of what several threads share. In services they are the standard library's; in tests each may be given its turn by a model
//! (`hub/tests/model.rs`), which then decides which thread goes on at every lock, and so runs through the orders in which they may meet.

#[cfg(not(test))]
pub(crate) use std::sync::{Mutex, MutexGuard, RwLock};

#[cfg(test)]
pub(crate) use modelled::{Mutex, RwLock, modelled, turn};
#[cfg(test)]
pub(crate) use std::sync::MutexGuard;

#[cfg(test)]
mod modelled {
    use std::cell::Cell;
    use std::sync::{LockResult, MutexGuard, RwLockReadGuard, RwLockWriteGuard, TryLockError, TryLockResult};

    thread_local! {
        /// All threads of a model are one to the system.
        static MODELLED: Cell<bool> = const { Cell::new(false) };
    }

    /// Runs a model: from here on its threads change at every [`turn`].
    pub(crate) fn modelled(model: impl FnOnce()) {
        MODELLED.set(true);
        model();
        MODELLED.set(false);
    }

    /// Another thread may go on here.
    pub(crate) fn turn() {
        if MODELLED.get() {
            shuttle::thread::yield_now();
        }
    }

    /// Waits for a lock, giving the others their turns where a model runs: the system knows only one thread then.
    fn locked<G>(
        wait: impl FnOnce() -> LockResult<G>,
        mut take: impl FnMut() -> TryLockResult<G>,
    ) -> LockResult<G> {
        if !MODELLED.get() {
            return wait();
        }
        loop {
            turn();
            match take() {
                Ok(guard) => return Ok(guard),
                Err(TryLockError::Poisoned(poisoned)) => return Err(poisoned),
                Err(TryLockError::WouldBlock) => {}
            }
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(std::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
            locked(|| self.0.lock(), || self.0.try_lock())
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct RwLock<T>(std::sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
            locked(|| self.0.read(), || self.0.try_read())
        }

        pub(crate) fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
            locked(|| self.0.write(), || self.0.try_write())
        }
    }
}

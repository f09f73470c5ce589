//! Locks, flags and queues of what several threads share. In services they are the standard library's; in tests each may be given its
//! turn by a model (`hub/tests/model.rs`), which then decides which thread goes on at every one of them, and so runs through the orders
//! in which they may meet.

#[cfg(not(test))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize};
#[cfg(not(test))]
pub(crate) use std::sync::mpsc::{Receiver, Sender, channel};
#[cfg(not(test))]
pub(crate) use std::sync::{Mutex, MutexGuard, RwLock};

#[cfg(test)]
pub(crate) use modelled::{
    AtomicBool, AtomicUsize, Mutex, Receiver, RwLock, Sender, channel, modelled, turn,
};
#[cfg(test)]
pub(crate) use std::sync::MutexGuard;

#[cfg(test)]
mod modelled {
    use std::cell::Cell;
    use std::sync::atomic::{self, Ordering};
    use std::sync::mpsc::{self, SendError, TryRecvError};
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

    #[derive(Debug, Default)]
    pub(crate) struct AtomicBool(atomic::AtomicBool);

    impl AtomicBool {
        pub(crate) fn store(&self, value: bool, order: Ordering) {
            turn();
            self.0.store(value, order);
        }

        pub(crate) fn swap(&self, value: bool, order: Ordering) -> bool {
            turn();
            self.0.swap(value, order)
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct AtomicUsize(atomic::AtomicUsize);

    impl AtomicUsize {
        pub(crate) fn load(&self, order: Ordering) -> usize {
            turn();
            self.0.load(order)
        }

        pub(crate) fn fetch_add(&self, value: usize, order: Ordering) -> usize {
            turn();
            self.0.fetch_add(value, order)
        }

        pub(crate) fn fetch_sub(&self, value: usize, order: Ordering) -> usize {
            turn();
            self.0.fetch_sub(value, order)
        }
    }

    pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = mpsc::channel();
        (Sender(sender), Receiver(receiver))
    }

    #[derive(Debug)]
    pub(crate) struct Sender<T>(mpsc::Sender<T>);

    impl<T> Clone for Sender<T> {
        fn clone(&self) -> Self {
            Self(self.0.clone())
        }
    }

    impl<T> Sender<T> {
        pub(crate) fn send(&self, value: T) -> Result<(), SendError<T>> {
            turn();
            self.0.send(value)
        }
    }

    #[derive(Debug)]
    pub(crate) struct Receiver<T>(mpsc::Receiver<T>);

    impl<T> Receiver<T> {
        pub(crate) fn try_recv(&self) -> Result<T, TryRecvError> {
            turn();
            self.0.try_recv()
        }
    }
}

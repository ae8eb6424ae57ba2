//! Creates futures directly on the heap.

use std::pin::Pin;

/// Creates a future in a box. The future of a request has several KiB. `Box::pin` would create the future on the stack
/// and then copy it. Here, the memory is allocated first, and the compiler can create the future directly in this
/// memory.
pub(crate) fn boxed_future<F: Future>(create: impl FnOnce() -> F) -> Pin<Box<F>> {
    let memory = Box::new_uninit();
    Box::into_pin(Box::write(memory, create()))
}

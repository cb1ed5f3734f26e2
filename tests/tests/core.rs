//! A filesystem without a kernel, on a disk in memory: held against a model, cut off, broken, and its bytes
//! against the document that describes them.

mod core {
    mod chunks;
    mod crash;
    mod format;
    mod hostile;
    mod model;
    mod order;
    mod smoke;
}

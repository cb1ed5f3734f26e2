//! A filesystem without a kernel, on a disk in memory: held against a model, cut off, broken, and its bytes
//! against the document that describes them.

mod core {
    mod batches;
    mod blocks;
    mod chunks;
    mod contract;
    mod crash;
    mod deltas;
    mod drill;
    mod errors;
    mod errseq;
    mod exhaustive;
    mod format;
    mod gc;
    mod heal;
    mod hostile;
    mod journal_parity;
    mod model;
    mod order;
    mod refill;
    mod rot;
    mod scrub;
    mod sentences;
    mod smoke;
    mod tensors;
    mod threads;
    mod twins;
}

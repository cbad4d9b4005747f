//! A file per provider: our call in its words, and its answer in ours.
//!
//! Each keeps a table of how it takes our parameters, from which its documents are made and by which its translation is tested: of
//! every parameter that was sent, the table and the body that goes out say the same.

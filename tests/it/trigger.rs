//! `b24 trigger`.

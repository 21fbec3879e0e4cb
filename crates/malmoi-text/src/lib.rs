//! Tokenizers, Hangul-safe normalisation, corpora and data-set readers.

//! What the web lab asks beside the public routes.

pub mod learn;
pub mod live;
pub mod machine;
pub mod models;
pub mod runs;

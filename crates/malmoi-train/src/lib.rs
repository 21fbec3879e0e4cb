//! Objectives, training loop, optimisers, schedules and resume.

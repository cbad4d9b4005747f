//! What all rooms speak: values that cannot be wrong, tasks, and errors that name a field.

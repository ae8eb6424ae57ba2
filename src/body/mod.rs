//! Request bodies: their content codings, and the fields of forms.

pub mod content_coding;
pub mod form;

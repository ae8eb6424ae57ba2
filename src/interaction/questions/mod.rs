//! The questions that callbacks ask the agent, and its answers.

mod answering;
mod question;

pub use question::{FIRST_QUESTION, Question, QuestionFault};

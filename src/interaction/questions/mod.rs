//! The questions that callbacks ask the agent, and the agent's answers.

mod answering;
mod question;

pub use question::{FIRST_QUESTION, Question, QuestionFault};

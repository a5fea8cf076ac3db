//! Whom an event is for, and what a stream asks that is to get it: a topic, or of a topic the events of one user.

/// Made by this tool only, of names that stand as they are in a query and in JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub topic: String,
    pub user: Option<String>,
}

impl Address {
    /// All of a topic.
    pub fn topic(topic: impl Into<String>) -> Self {
        Self { topic: topic.into(), user: None }
    }

    /// Of a topic, what belongs to this user.
    pub fn user(topic: impl Into<String>, user: impl Into<String>) -> Self {
        Self { topic: topic.into(), user: Some(user.into()) }
    }

    /// What a stream asks for.
    pub fn query(&self) -> String {
        match &self.user {
            None => format!("topics={}", self.topic),
            Some(user) => format!("topics={}&user_id={user}", self.topic),
        }
    }
}

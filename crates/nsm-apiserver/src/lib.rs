//! Calls of a Kubernetes API server, and what its refusals mean.
//!
//! Guarantees: a call ends within its bound; failures are told apart by what to do about them, not by their text.
#![forbid(unsafe_code)]

use std::time::Duration;

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nobody answered, or with "not now".
    #[error("{0}")]
    Away(String),
    /// Somebody else wrote at the same time.
    #[error("{0}")]
    Conflict(String),
    /// What the call names is not there.
    #[error("{0}")]
    Missing(String),
    /// The caller may not.
    #[error("{0}")]
    Forbidden(String),
    /// The object is wrong.
    #[error("{0}")]
    Invalid(String),
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        let kube::Error::Api(status) = error else { return Self::Away(chain(&error)) };
        let why = status.message.clone();
        match status.code {
            409 => Self::Conflict(why),
            404 => Self::Missing(why),
            401 | 403 => Self::Forbidden(why),
            400 | 413 | 422 => Self::Invalid(why),
            _ => Self::Away(format!("{} {why}", status.code)),
        }
    }
}

/// A call that ends within its bound.
///
/// # Errors
/// [`Failure::Away`] where it took longer; else why it failed.
pub async fn bounded<T>(bound: Duration, call: impl Future<Output = kube::Result<T>>) -> Result<T, Failure> {
    match tokio::time::timeout(bound, call).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Failure::Away(format!("no answer within {bound:?}"))),
    }
}

/// An error with its causes, as far as they say something new.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn a_refusal_is_what_its_code_says() {
        let of = |code| Failure::from(kube::Error::Api(Box::new(Status::failure("why", "Reason").with_code(code))));
        assert_eq!(of(409), Failure::Conflict("why".into()));
        assert_eq!(of(404), Failure::Missing("why".into()));
        assert_eq!(of(403), Failure::Forbidden("why".into()));
        assert_eq!(of(422), Failure::Invalid("why".into()));
        assert_eq!(of(503), Failure::Away("503 why".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_within_its_bound() {
        let never = bounded::<()>(Duration::from_secs(3), std::future::pending()).await;
        assert_eq!(never, Err(Failure::Away("no answer within 3s".into())));
    }
}

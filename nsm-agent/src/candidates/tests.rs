//! Choice and explanation agree; matches, fallthrough, weights and turns do what they say.
use proptest as _;

//! nsm-cni-types

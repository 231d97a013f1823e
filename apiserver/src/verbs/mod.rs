//! The verbs, each generic over resources.

//! What is: a node's promise and its report; the runtime trait.

//! The language: kinds, names, quantities, selectors, patches. Values only.

//! How much of what anybody may have: requests a second, streams at a time. Time is a parameter.

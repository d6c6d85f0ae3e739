//! UAPI client.

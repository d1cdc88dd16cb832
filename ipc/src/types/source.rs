//! Where a release's content comes from.

use crate::id::ReleaseId;
use crate::wire::upload::UploadTicket;
use serde::{Deserialize, Serialize};

/// Where a release's content comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// A directory of source, uploaded as a tar archive.
    Directory {
        /// The finished upload.
        upload: UploadTicket,
        /// What the caller called it, for `release list`.
        label: String,
    },
    /// A directory of files to serve as they are, uploaded as a tar archive.
    Static {
        /// The finished upload.
        upload: UploadTicket,
        /// What the caller called it, for `release list`.
        label: String,
        /// Answer unknown paths with `/index.html` (single-page applications).
        spa: bool,
    },
    /// An image that the engine has or can pull.
    Image {
        /// Such as `shop:3` or `registry.example.org/shop@sha256:…`.
        reference: String,
    },
    /// A git repository.
    Git {
        /// An `https`, `ssh` or `file` URL, or a local path.
        url: String,
        /// Branch, tag or commit; the remote's default branch if absent.
        reference: Option<String>,
    },
    /// The content of an earlier release with the app's present settings.
    Release {
        /// Which.
        release: ReleaseId,
    },
}

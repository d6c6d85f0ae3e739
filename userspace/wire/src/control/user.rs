//! Users and their logins (`tailcfg.User`, `tailcfg.Login`, `tailcfg.UserProfile`).

use types::UserId;

use super::Time;
use super::message::message;

message! {
    /// A user of the network.
    pub struct User {
        /// Number.
        pub id: UserId = "ID",
        /// Name for display.
        pub display_name: String = "DisplayName",
        /// Picture.
        pub profile_pic_url: String = "ProfilePicURL" omitzero,
        /// When the user was made.
        pub created: Time = "Created" omitzero,
    }

    /// A user's account at an identity provider.
    pub struct Login {
        /// Number of the login, which is not the user's.
        pub id: i64 = "ID",
        /// Provider, such as `google` or `oidc`.
        pub provider: String = "Provider",
        /// The account, often a mail address.
        pub login_name: String = "LoginName",
        /// Name for display.
        pub display_name: String = "DisplayName",
        /// Picture.
        pub profile_pic_url: String = "ProfilePicURL" omitzero,
    }

    /// What is shown of a user beside the nodes.
    pub struct UserProfile {
        /// The user.
        pub id: UserId = "ID",
        /// The account, often a mail address; display only.
        pub login_name: String = "LoginName",
        /// Name for display.
        pub display_name: String = "DisplayName",
        /// Picture.
        pub profile_pic_url: String = "ProfilePicURL" omitzero,
        /// Groups the user is in, where policy lets the reader see them.
        pub groups: Vec<String> = "Groups" omitempty,
    }
}

//! The table of roles: the allowed actions of each, and in which accounts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use crate::http::Problem;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Runs the ledger: everything, everywhere.
    Operator,
    /// Manages its accounts: reads, and the settings that make no credits.
    Admin,
    /// A service that uses credits: usage, checks and holds, reads nothing.
    Producer,
    /// One user: own usage and status in one account.
    Member,
    /// Reads everything, including the audit log and its proofs.
    Auditor,
}

/// An action that needs a permission, grouped as the roles differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    OpenAccount,
    /// Change what an account may spend: its plan, its overdraft, its closing, its test clock.
    Terms,
    /// Change an account's name, low-balance line, limits, alerts, auto top-up and contacts; checkout, redemptions,
    /// invitations.
    Settings,
    UsageWrite,
    /// Requests before work: check, reserve, extend, settle, release.
    CheckAndHold,
    /// Move money by hand: grants, adjustments, recorded purchases, refunds.
    Money,
    /// Undo: reversals of usage, voids of grants.
    Undo,
    RateCards,
    PromoCodes,
    /// Make, list and revoke keys.
    Keys,
    /// Make tokens for members of the account.
    MemberTokens,
    /// Read rate cards and promo codes.
    Catalog,
    /// Read everything of an account.
    AccountRead,
    /// Read what a member may see: own rows of users, usage and events, and the account's status.
    OwnRead,
    /// Read the journal, checkpoints and proofs.
    AuditRead,
}

impl Role {
    /// Returns whether the role allows the action at all; [`Principal::may`] checks the account.
    pub const fn allows(self, action: Action) -> bool {
        match self {
            Role::Operator => true,
            Role::Admin => {
                matches!(
                    action,
                    Action::Settings | Action::MemberTokens | Action::AccountRead | Action::OwnRead
                )
            }
            Role::Producer => {
                matches!(action, Action::UsageWrite | Action::CheckAndHold | Action::MemberTokens)
            }
            Role::Member => matches!(action, Action::OwnRead),
            Role::Auditor => {
                matches!(action, Action::Catalog | Action::AccountRead | Action::OwnRead | Action::AuditRead)
            }
        }
    }

    /// Returns whether keys of this role apply to all accounts without naming any.
    pub const fn is_everywhere(self) -> bool {
        matches!(self, Role::Operator | Role::Auditor)
    }

    /// Returns the role's name in keys and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Operator => "operator",
            Role::Admin => "admin",
            Role::Producer => "producer",
            Role::Member => "member",
            Role::Auditor => "auditor",
        }
    }

    pub fn by_name(name: &str) -> Option<Self> {
        [Role::Operator, Role::Admin, Role::Producer, Role::Member, Role::Auditor]
            .into_iter()
            .find(|role| role.name() == name)
    }
}

/// The accounts that a key applies to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accounts {
    All,
    /// Only these.
    Named(Arc<[String]>),
}

impl Accounts {
    /// Returns whether an account is included.
    pub fn contain(&self, account: &str) -> bool {
        match self {
            Accounts::All => true,
            Accounts::Named(names) => names.iter().any(|name| name == account),
        }
    }
}

/// The authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Id of the key; the `actor` of its writes.
    pub key_id: Arc<str>,
    pub role: Role,
    pub accounts: Accounts,
    pub user_id: Option<Arc<str>>,
}

impl Principal {
    /// Makes an operator with this key id.
    pub fn operator(key_id: &str) -> Self {
        Self { key_id: key_id.into(), role: Role::Operator, accounts: Accounts::All, user_id: None }
    }

    /// Returns whether the caller may perform the action in this account.
    pub fn may(&self, action: Action, account: &str) -> bool {
        self.role.allows(action) && self.accounts.contain(account)
    }

    /// 403 unless the caller may perform the action in this account; call it before reading whether the account exists.
    pub fn require(&self, action: Action, account: &str) -> Result<(), Problem> {
        if self.may(action, account) { Ok(()) } else { Err(Problem::forbidden()) }
    }

    /// 403 unless the role allows the action: for requests on no account or several (check each by [`Self::may`]).
    pub fn require_role(&self, action: Action) -> Result<(), Problem> {
        if self.role.allows(action) { Ok(()) } else { Err(Problem::forbidden()) }
    }

    /// Returns the only user whose rows the caller may see; `None` means all users.
    pub fn only_user(&self) -> Option<&str> {
        (self.role == Role::Member).then(|| self.user_id.as_deref().unwrap_or_default())
    }

    /// 403 if a member reads another user.
    pub fn require_user(&self, user_id: &str) -> Result<(), Problem> {
        match self.only_user() {
            Some(own) if own != user_id => Err(Problem::forbidden()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLES: [Role; 5] = [Role::Operator, Role::Admin, Role::Producer, Role::Member, Role::Auditor];

    #[test]
    fn each_role_may_do_what_the_contract_says_and_no_more() {
        let yes = true;
        let no = false;
        //                       operator admin producer member auditor
        let table = [
            (Action::OpenAccount, [yes, no, no, no, no]),
            (Action::Terms, [yes, no, no, no, no]),
            (Action::Settings, [yes, yes, no, no, no]),
            (Action::UsageWrite, [yes, no, yes, no, no]),
            (Action::CheckAndHold, [yes, no, yes, no, no]),
            (Action::Money, [yes, no, no, no, no]),
            (Action::Undo, [yes, no, no, no, no]),
            (Action::RateCards, [yes, no, no, no, no]),
            (Action::PromoCodes, [yes, no, no, no, no]),
            (Action::Keys, [yes, no, no, no, no]),
            (Action::MemberTokens, [yes, yes, yes, no, no]),
            (Action::Catalog, [yes, no, no, no, yes]),
            (Action::AccountRead, [yes, yes, no, no, yes]),
            (Action::OwnRead, [yes, yes, no, yes, yes]),
            (Action::AuditRead, [yes, no, no, no, yes]),
        ];
        for (action, expected) in table {
            assert_eq!(ROLES.map(|role| role.allows(action)), expected, "{action:?}");
        }
    }

    fn principal(role: Role, accounts: &[&str]) -> Principal {
        let named: Vec<String> = accounts.iter().map(|&name| name.to_owned()).collect();
        Principal {
            key_id: "k".into(),
            role,
            accounts: Accounts::Named(named.into()),
            user_id: Some("ana".into()),
        }
    }

    #[test]
    fn a_key_holds_in_its_accounts_only() {
        let producer = principal(Role::Producer, &["acme", "beta"]);
        assert!(producer.may(Action::UsageWrite, "beta"));
        let elsewhere = producer.require(Action::UsageWrite, "gamma").expect_err("another account");
        let beyond = producer.require(Action::Money, "acme").expect_err("another role");
        assert_eq!(elsewhere.body(), beyond.body(), "a refusal tells nothing");
        assert_eq!(elsewhere.status, 403);
    }

    #[test]
    fn a_member_sees_own_rows_only() {
        let member = principal(Role::Member, &["acme"]);
        assert_eq!(member.only_user(), Some("ana"));
        assert!(member.require_user("ana").is_ok());
        assert!(member.require_user("bo").is_err());
        assert_eq!(principal(Role::Admin, &["acme"]).only_user(), None);
    }

    #[test]
    fn a_role_is_found_by_the_name_it_has_in_json() {
        for role in ROLES {
            let json = serde_json::to_value(role).expect("a name");
            assert_eq!(json.as_str(), Some(role.name()));
            assert_eq!(Role::by_name(role.name()), Some(role));
        }
        assert_eq!(Role::by_name("root"), None);
    }
}

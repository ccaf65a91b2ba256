//! The unprivileged account that PostgreSQL runs under where we are root, because it refuses root.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::unistd::{User, geteuid};

/// In order of preference: Debian's PostgreSQL creates the first, every Unix has the second.
const ACCOUNTS: [&str; 2] = ["postgres", "nobody"];

/// A user of this machine without rights of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

impl Account {
    /// Returns the account to run PostgreSQL under; none where we are not root and run it ourselves.
    pub(crate) fn for_postgres() -> Result<Option<Account>> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        for name in ACCOUNTS {
            if let Some(user) = User::from_name(name)? {
                return Ok(Some(Account {
                    name: name.to_owned(),
                    uid: user.uid.as_raw(),
                    gid: user.gid.as_raw(),
                }));
            }
        }
        bail!(
            "PostgreSQL refuses to run as root and this machine has no user `postgres` or `nobody`: add one, or run the ledger as an ordinary user"
        )
    }

    /// Returns whether the account can enter the folder; asks the system, so that access lists count too.
    pub(crate) fn can_enter(&self, folder: &Path) -> bool {
        Command::new("/bin/sh")
            .args(["-c", "test -x \"$0\""])
            .arg(folder)
            .uid(self.uid)
            .gid(self.gid)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    /// Makes the account the owner of the folder, but not of its contents.
    pub(crate) fn own(&self, path: &Path) -> Result<()> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("cannot give {} to the user {}", path.display(), self.name))
    }
}

/// Returns `wanted` where the account can reach it, else an equivalent folder below `public`, which it can.
///
/// A data directory below /root is closed to everyone else, and opening /root to the world is not ours to do.
pub(crate) fn reachable_folder(account: Option<&Account>, wanted: &Path, public: &Path) -> Result<PathBuf> {
    let Some(account) = account else {
        return Ok(wanted.to_path_buf());
    };
    let parent = wanted.parent().unwrap_or(wanted);
    // Parents that don't exist yet are created so that others may pass through.
    if account.can_enter(existing_ancestor(parent)) {
        return Ok(wanted.to_path_buf());
    }
    if account.can_enter(existing_ancestor(public)) {
        let name = wanted.to_string_lossy().trim_matches('/').replace('/', "-");
        return Ok(public.join(name));
    }
    bail!(
        "PostgreSQL refuses to run as root, and its user {} can enter neither {} nor {}: choose another --data-dir",
        account.name,
        parent.display(),
        public.display()
    )
}

/// Makes a folder and its parents so that other accounts may pass through.
pub(crate) fn create_passable(folder: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(folder)
        .with_context(|| format!("cannot create {}", folder.display()))
}

/// Returns the folder itself, or the nearest above it that exists.
pub(crate) fn existing_ancestor(folder: &Path) -> &Path {
    folder.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Where the tests run as an ordinary user the folder is always their own, which is the other half of the rule.
    #[test]
    fn a_folder_closed_to_the_account_is_replaced_by_a_public_one() {
        let home = tempfile::tempdir().expect("a temporary folder");
        let public = tempfile::tempdir().expect("a temporary folder");
        set_mode(home.path(), 0o700);
        set_mode(public.path(), 0o755);
        let wanted = home.path().join("postgres");
        let account = Account::for_postgres().expect("an account");

        let chosen = reachable_folder(account.as_ref(), &wanted, public.path()).expect("a folder");
        assert_eq!(chosen.starts_with(public.path()), account.is_some());

        set_mode(home.path(), 0o755);
        let chosen = reachable_folder(account.as_ref(), &wanted, public.path()).expect("a folder");
        assert_eq!(chosen, wanted);
    }

    fn set_mode(folder: &Path, mode: u32) {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(folder, mode).expect("permissions");
    }
}

//! Everything from one store to another.

use super::{Vault, VaultError};

impl Vault {
    /// Moves all entries of `services` to `target`, and says how many. Only when
    /// each of them was read back from there are they removed here; whatever
    /// goes wrong before, this vault stays whole. An entry of `target` that has
    /// another secret is replaced only with `replace`.
    pub fn move_to(
        &self,
        target: &Self,
        services: &[&str],
        replace: bool,
    ) -> Result<usize, VaultError> {
        let mut names = Vec::new();
        for service in services {
            for user in self.users(service)? {
                names.push(((*service).to_owned(), user));
            }
        }
        let gone = |user: &str| VaultError::NotMoved(user.to_owned());
        // All are looked at before the first is written.
        let mut missing = Vec::new();
        for (service, user) in &names {
            let ours = self.read(service, user)?.ok_or_else(|| gone(user))?;
            match target.read(service, user)? {
                Some(theirs) if theirs == ours => {}
                Some(_) if !replace => {
                    return Err(VaultError::Differs {
                        service: service.clone(),
                        user: user.clone(),
                    });
                }
                Some(_) | None => missing.push((service, user, ours)),
            }
        }
        for (service, user, secret) in &missing {
            target.write(service, user, secret)?;
        }
        for (service, user) in &names {
            let ours = self.read(service, user)?.ok_or_else(|| gone(user))?;
            if target.read(service, user)?.as_ref() != Some(&ours) {
                return Err(gone(user));
            }
        }
        // And they must be found as well, not only be there.
        for service in services {
            let found = target.users(service)?;
            let missing = names
                .iter()
                .find(|(of, user)| of == service && !found.contains(user));
            if let Some((_, user)) = missing {
                return Err(gone(user));
            }
        }
        for (service, user) in &names {
            self.remove(service, user)?;
        }
        Ok(names.len())
    }
}

//! Which database, as an address: `postgres://user:password@host:port/database?sslmode=verify-full`. Pure.

use std::fmt;
use std::path::PathBuf;

use crate::tls::Tls;

/// A database and who connects to it.
#[derive(Clone, PartialEq, Eq)]
pub struct Database {
    /// Host name or address, or the folder of a Unix socket.
    pub host: String,
    /// Port.
    pub port: u16,
    /// User.
    pub user: String,
    /// Password; may be empty.
    pub password: String,
    /// Database.
    pub name: String,
    /// How the way there is encrypted; `None`: it is not.
    pub tls: Option<Tls>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({self})")
    }
}

/// Without the password.
impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}/{}", self.user, self.host, self.port, self.name)
    }
}

/// What is wrong with an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// Not of this form.
    #[error(
        "expected postgres://user:password@host:5432/database (%XX for what is not a letter or digit in user and password)"
    )]
    Form,
    /// A parameter that is not known.
    #[error(
        "the parameter {0} is not supported; there are host (a socket's folder), sslmode (disable, verify-full) and sslrootcert (a file)"
    )]
    Parameter(String),
    /// A TLS that verifies nothing was asked for.
    #[error(
        "sslmode={0} is not supported: say sslmode=verify-full, with sslrootcert=FILE where the system does not know the database's \
         authority, or sslmode=disable"
    )]
    Tls(String),
    /// TLS makes no sense there.
    #[error("sslmode=verify-full is for a host, not for a Unix socket")]
    TlsSocket,
    /// Authorities without TLS.
    #[error("sslrootcert needs sslmode=verify-full")]
    Authorities,
}

impl Database {
    /// Reads an address.
    ///
    /// # Errors
    /// [`BadAddress`].
    pub fn parse(address: &str) -> Result<Self, BadAddress> {
        let rest = ["postgres://", "postgresql://"]
            .iter()
            .find_map(|scheme| address.strip_prefix(scheme))
            .ok_or(BadAddress::Form)?;
        let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let (who_where, name) = rest.split_once('/').ok_or(BadAddress::Form)?;
        let (who, place) = who_where.rsplit_once('@').ok_or(BadAddress::Form)?;
        let (user, password) = who.split_once(':').unwrap_or((who, ""));
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| BadAddress::Form)?),
            None => (place, 5432),
        };
        let mut host = decoded(host)?;
        let (mut verified, mut authorities) = (false, None);
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("host", folder)) => host = decoded(folder)?,
                Some(("sslmode", "disable")) => verified = false,
                Some(("sslmode", "verify-full")) => verified = true,
                Some(("sslrootcert", file)) => authorities = Some(PathBuf::from(decoded(file)?)),
                Some(("sslmode", mode)) => return Err(BadAddress::Tls(mode.to_owned())),
                _ => return Err(BadAddress::Parameter(parameter.to_owned())),
            }
        }
        if !verified && authorities.is_some() {
            return Err(BadAddress::Authorities);
        }
        if verified && host.starts_with('/') {
            return Err(BadAddress::TlsSocket);
        }
        let database = Self {
            tls: verified.then_some(Tls { authorities }),
            host,
            port,
            user: decoded(user)?,
            password: decoded(password)?,
            name: decoded(name)?,
        };
        if [&database.host, &database.user, &database.name]
            .iter()
            .any(|part| part.is_empty())
        {
            return Err(BadAddress::Form);
        }
        Ok(database)
    }
}

fn decoded(text: &str) -> Result<String, BadAddress> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            let pair = digit().zip(digit()).ok_or(BadAddress::Form)?;
            bytes.push(u8::try_from(pair.0 * 16 + pair.1).map_err(|_| BadAddress::Form)?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).map_err(|_| BadAddress::Form)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(address: &str, expected: Result<(&str, u16, &str, &str, &str), BadAddress>) {
        let found = Database::parse(address);
        let expected = expected.map(|(host, port, user, password, name)| Database {
            host: host.to_owned(),
            port,
            user: user.to_owned(),
            password: password.to_owned(),
            name: name.to_owned(),
            tls: None,
        });
        assert_eq!(found, expected, "{address}");
    }

    #[test]
    fn addresses() {
        check("postgres://u:p@db:5433/shop", Ok(("db", 5433, "u", "p", "shop")));
        check("postgresql://u@db/shop", Ok(("db", 5432, "u", "", "shop")));
        check(
            "postgres://u:p%40%3A@db/shop?sslmode=disable",
            Ok(("db", 5432, "u", "p@:", "shop")),
        );
        check(
            "postgres://u@%2Fvar%2Frun%2Fpostgresql/shop",
            Ok(("/var/run/postgresql", 5432, "u", "", "shop")),
        );
        check(
            "postgres://u@:5433/shop?host=/tmp",
            Ok(("/tmp", 5433, "u", "", "shop")),
        );
        for wrong in [
            "",
            "mysql://u@h/d",
            "postgres://h/d",
            "postgres://u@h",
            "postgres://u@h/",
            "postgres://@h/d",
            "postgres://u@/d",
            "postgres://u@h:x/d",
            "postgres://u%4@h/d",
        ] {
            check(wrong, Err(BadAddress::Form));
        }
        check(
            "postgres://u@h/d?sslmode=require",
            Err(BadAddress::Tls("require".to_owned())),
        );
        check(
            "postgres://u@h/d?a=b",
            Err(BadAddress::Parameter("a=b".to_owned())),
        );
        check(
            "postgres://u@h/d?sslrootcert=/ca.pem",
            Err(BadAddress::Authorities),
        );
        check(
            "postgres://u@%2Ftmp/d?sslmode=verify-full",
            Err(BadAddress::TlsSocket),
        );
    }

    #[test]
    fn tls_is_verified_or_not_there() {
        let tls = |parameters: &str| {
            Database::parse(&format!("postgres://u@h/d{parameters}"))
                .unwrap()
                .tls
        };
        assert_eq!(tls("?sslmode=disable"), None);
        assert_eq!(tls("?sslmode=verify-full"), Some(Tls { authorities: None }));
        let authorities = Some(PathBuf::from("/etc/my ca.pem"));
        assert_eq!(
            tls("?sslmode=verify-full&sslrootcert=/etc/my%20ca.pem"),
            Some(Tls { authorities })
        );
    }

    #[test]
    fn the_password_is_never_shown() {
        let database = Database::parse("postgres://u:secret@h/d").unwrap();
        assert_eq!(
            format!("{database} {database:?}"),
            "u@h:5432/d Database(u@h:5432/d)"
        );
    }
}

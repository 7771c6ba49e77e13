//! Who runs a piece of work: acting as another role for a while.

use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use std::ffi::{CStr, CString};

/// Until dropped, statements run with the rights of the role it was made for.
pub struct Acting {
    user: Oid,
    context: i32,
}

/// Runs what follows as `role`, as a SECURITY DEFINER function would: `SET ROLE` is refused inside.
pub fn act_as(role: Oid) -> Acting {
    let mut user = Oid::INVALID;
    let mut context = 0;
    // SAFETY: plain reads and writes of two backend-local variables; abort restores them by itself on error.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        pg_sys::SetUserIdAndSecContext(role, context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32);
    }
    Acting { user, context }
}

impl Drop for Acting {
    fn drop(&mut self) {
        // SAFETY: puts back what was read when the guard was made.
        unsafe { pg_sys::SetUserIdAndSecContext(self.user, self.context) }
    }
}

/// The extension's own statements: the owner's rights and a search path that no caller can bend.
pub struct Internal {
    _acting: Acting,
    _path: super::guc::Nest,
}

/// Until dropped, statements run with the rights of the tables' owner. A caller's search path could put an operator of
/// the caller's own in front of PostgreSQL's; so it is pinned with it.
pub fn internal(owner: Oid) -> Internal {
    let path = super::guc::Nest::pinned_path();
    Internal { _acting: act_as(owner), _path: path }
}

/// The role whose rights count now.
pub fn current() -> Oid {
    // SAFETY: reads a backend-local variable.
    unsafe { pg_sys::GetUserId() }
}

/// The role that the client acts as: who logged in, or what SET ROLE has chosen. Not changed by acting as another.
pub fn outer() -> Oid {
    // SAFETY: reads a backend-local variable.
    unsafe { pg_sys::GetOuterUserId() }
}

/// The role that logged in.
pub fn session() -> Oid {
    // SAFETY: reads a backend-local variable.
    unsafe { pg_sys::GetSessionUserId() }
}

pub fn is_superuser(role: Oid) -> bool {
    // SAFETY: a catalog look-up inside a transaction.
    unsafe { pg_sys::superuser_arg(role) }
}

/// True when `member` holds the rights of `role` (superusers hold all).
pub fn has_rights_of(member: Oid, role: Oid) -> bool {
    // SAFETY: a catalog look-up inside a transaction.
    unsafe { pg_sys::has_privs_of_role(member, role) }
}

/// True when `member` may become `role`.
pub fn is_member(member: Oid, role: Oid) -> bool {
    // SAFETY: a catalog look-up inside a transaction.
    unsafe { pg_sys::is_member_of_role(member, role) }
}

pub fn by_name(name: &str) -> Option<Oid> {
    let name = CString::new(name).ok()?;
    // SAFETY: missing_ok, NUL-terminated name.
    let oid = unsafe { pg_sys::get_role_oid(name.as_ptr(), true) };
    (oid != Oid::INVALID).then_some(oid)
}

pub fn name_of(role: Oid) -> Option<String> {
    // SAFETY: noerr; the palloc'd name is copied at once.
    unsafe {
        let name = pg_sys::GetUserNameFromId(role, true);
        if name.is_null() { None } else { CStr::from_ptr(name).to_str().ok().map(str::to_owned) }
    }
}

package copier

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/user"

	"kaniko-build/executor/internal/tree"
	"kaniko-build/schema/diag"
)

const maxUserFile = 10 << 20 // bytes of /etc/passwd or /etc/group, as in BuildKit

// readUserFile reads /etc/passwd or /etc/group of t, or nothing if it has none.
func readUserFile(ctx context.Context, t tree.Tree, name string) ([]byte, error) {
	real, err := tree.Resolve(ctx, t, name)
	if err != nil {
		return nil, fmt.Errorf("find /%s: %w", name, err)
	}
	if e, err := t.Lstat(ctx, real); missing(err) || err == nil && !e.IsRegular() {
		return nil, nil
	}
	f, err := t.Open(ctx, real)
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open /%s: %w", name, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxUserFile+1))
	if err != nil {
		return nil, fmt.Errorf("read /%s: %w", name, err)
	}
	if len(b) > maxUserFile {
		return nil, &diag.Problem{What: fmt.Sprintf("%q exceeds %d bytes", "/"+name, maxUserFile)}
	}
	return b, nil
}

// LookupOwner is the owner that --chown=spec gives, and that directories of
// WORKDIR get from USER: names are looked up in t, and unknown ones are 0. A
// user without a group, or with an unknown one, takes the group of /etc/passwd, a
// number itself; what a colon leaves empty is 0. "" is nil: no change.
func LookupOwner(ctx context.Context, t tree.Tree, spec string) (*[2]uint32, error) {
	if spec == "" {
		return nil, nil
	}
	var own [2]uint32
	name, group, both := strings.Cut(spec, ":")
	if id, ok := parseID(name); ok {
		own = [2]uint32{id, id}
	} else {
		b, err := readUserFile(ctx, t, "etc/passwd")
		if err != nil {
			return nil, err
		}
		found, err := user.ParsePasswdFilter(bytes.NewReader(b), func(u user.User) bool { return u.Name == name })
		if err != nil {
			return nil, fmt.Errorf("read /etc/passwd: %w", err)
		}
		if len(found) > 0 {
			own = [2]uint32{uint32(found[0].Uid), uint32(found[0].Gid)}
		}
	}
	if !both {
		return &own, nil
	}
	if group == "" {
		own[1] = 0
		return &own, nil
	}
	if id, ok := parseID(group); ok {
		own[1] = id
		return &own, nil
	}
	b, err := readUserFile(ctx, t, "etc/group")
	if err != nil {
		return nil, err
	}
	found, err := user.ParseGroupFilter(bytes.NewReader(b), func(g user.Group) bool { return g.Name == group })
	if err != nil {
		return nil, fmt.Errorf("read /etc/group: %w", err)
	}
	if len(found) > 0 {
		own[1] = uint32(found[0].Gid)
	}
	return &own, nil
}

func parseID(s string) (uint32, bool) {
	if s == "root" {
		return 0, true
	}
	n, err := strconv.ParseInt(s, 10, 32)
	return uint32(n), err == nil
}

// fullID is parseID over the whole range of ids, as USER has it.
func fullID(s string) (uint32, bool) {
	if s == "root" {
		return 0, true
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil
}

// User is whom a process runs as.
type User struct {
	UID, GID uint32
	Groups   []uint32 // supplementary; GID is always among them, as BuildKit has it
	Home     string   // of the first entry of /etc/passwd that has UID, as with runc; "/" without one
}

// LookupUser is the user that USER spec means for a RUN in t. "" is root. An
// unknown name is a *diag.Problem, an unknown number is that number.
func LookupUser(ctx context.Context, t tree.Tree, spec string) (User, error) {
	passwd, err := readUserFile(ctx, t, "etc/passwd")
	if err != nil {
		return User{}, err
	}
	if uid, gid, ok := bothIDs(spec); ok {
		return User{UID: uid, GID: gid, Groups: []uint32{gid}, Home: home(passwd, uid)}, nil
	}
	group, err := readUserFile(ctx, t, "etc/group")
	if err != nil {
		return User{}, err
	}
	name := spec
	if name == "" {
		name = "0"
	}
	x, err := user.GetExecUser(name, nil, bytes.NewReader(passwd), bytes.NewReader(group))
	switch {
	case err != nil && spec == "":
		return User{Groups: []uint32{0}, Home: "/"}, nil
	case errors.Is(err, user.ErrNoPasswdEntries), errors.Is(err, user.ErrNoGroupEntries), errors.Is(err, user.ErrRange):
		return User{}, &diag.Problem{What: err.Error(), Hint: "create it in an earlier step, or use a number"}
	case err != nil:
		return User{}, fmt.Errorf("look up user %s: %w", spec, err)
	}
	u := User{UID: uint32(x.Uid), GID: uint32(x.Gid), Home: home(passwd, uint32(x.Uid))}
	for _, g := range x.Sgids {
		u.Groups = append(u.Groups, uint32(g))
	}
	if !slices.Contains(u.Groups, u.GID) {
		u.Groups = append([]uint32{u.GID}, u.Groups...)
	}
	return u, nil
}

// home is the home of a user, who may be another one than was named: runc knows the
// number only.
func home(passwd []byte, uid uint32) string {
	found, err := user.ParsePasswdFilter(bytes.NewReader(passwd), func(u user.User) bool { return u.Uid == int(uid) })
	if err != nil || len(found) == 0 {
		return "/"
	}
	return found[0].Home
}

// bothIDs reads "uid:gid", which needs no file.
func bothIDs(spec string) (uid, gid uint32, ok bool) {
	name, group, found := strings.Cut(spec, ":")
	if !found {
		return 0, 0, false
	}
	uid, ok1 := fullID(name)
	gid, ok2 := fullID(group)
	return uid, gid, ok1 && ok2
}

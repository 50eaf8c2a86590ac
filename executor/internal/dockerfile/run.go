package dockerfile

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"kaniko-build/schema/diag"
)

// scriptDir is where a heredoc that is a script is mounted.
const scriptDir = "/dev/pipes/"

func (r *stageRun) doRun(c *instructions.RunCommand, cmd *command, step *Step) error {
	f := r.g.f
	run := &Run{User: r.s.user, Dir: path.Clean(r.s.dir), Hostname: cmp.Or(f.args["BUILDKIT_SANDBOX_HOSTNAME"], f.opts.Hostname), ExtraHosts: f.opts.ExtraHosts,
		ShmSize: f.opts.ShmSize, ProxyEnv: proxyEnv(f.args)}
	args, err := runArgs(c, run)
	if err != nil {
		return err
	}
	if c.PrependShell {
		args = r.withShell(args)
	}
	if len(args) == 0 {
		return &diag.Problem{Pos: cmd.pos, What: "RUN has an empty command: no argument is given",
			Hint: `name the program: RUN ["program", "argument"]`}
	}
	for _, a := range args {
		if !utf8.ValidString(a) {
			return &diag.Problem{Pos: cmd.pos, What: "the command is not valid UTF-8", Hint: "save the Dockerfile as UTF-8, or COPY the script from a file"}
		}
	}
	run.Argv = args

	env := r.s.env
	if run.Mounts, env, err = r.mounts(c, cmd, env); err != nil {
		return err
	}
	run.Env = env
	if instructions.GetSecurity(c) == instructions.SecurityInsecure {
		return &diag.Problem{Pos: f.word(cmd.pos, "--security"), What: "security.insecure is not allowed",
			Hint: "builds have no privileges to hand out: remove --security=insecure"}
	}
	run.Network = instructions.GetNetwork(c)
	if run.Network == instructions.NetworkDefault {
		run.Network = f.opts.NetworkMode
	}
	if run.Network == "default" || run.Network == "sandbox" {
		run.Network = ""
	}
	for _, d := range instructions.GetDevices(c) {
		if d.Required {
			return &diag.Problem{Pos: f.word(cmd.pos, "--device"), What: fmt.Sprintf("required device %q is not registered", d.Name),
				Hint: "builds have no devices of the host to hand out: remove --device, or its required"}
		}
		run.Devices = append(run.Devices, Device{Name: d.Name})
	}

	step.Run, step.Empty = run, false
	step.CreatedBy = "RUN " + r.runText(args) + " # buildkit"
	return nil
}

// runArgs is the command line without the shell. A lone heredoc is a script for
// the shell, or a file if it begins with "#!"; others are put back into the text.
func runArgs(c *instructions.RunCommand, run *Run) ([]string, error) {
	if len(c.Files) == 0 {
		return c.CmdLine, nil
	}
	if len(c.CmdLine) != 1 || !c.PrependShell {
		return nil, fmt.Errorf("parsing produced an invalid run command: %v", c.CmdLine)
	}
	if parser.MustParseHeredoc(c.CmdLine[0]) == nil {
		text := c.CmdLine[0]
		for _, h := range c.Files {
			text += "\n" + h.Data + h.Name
		}
		return []string{text}, nil
	}
	h := c.Files[0]
	data := h.Data
	if h.Chomp {
		data = parser.ChompHeredocContent(data)
	}
	if !strings.HasPrefix(data, "#!") {
		return []string{data}, nil
	}
	name := path.Clean("/" + h.Name)
	if path.Dir(name) != "/" || name == "/" {
		return nil, fmt.Errorf("heredoc %q is not the name of a file", h.Name)
	}
	run.Files = []InlineFile{{Path: scriptDir + name[1:], Mode: 0o755, Data: []byte(data)}}
	return []string{path.Join(scriptDir, h.Name)}, nil
}

// runText is the command for the history, with declared ARGs in front.
func (r *stageRun) runText(args []string) string {
	var env []string
	at := map[string]int{}
	for _, a := range r.s.args {
		v, ok := r.s.env.Get(a.Key)
		if !ok {
			v = a.ValueString()
		}
		kv := a.Key + "=" + v
		if i, ok := at[a.Key]; ok {
			env[i] = kv
			continue
		}
		at[a.Key] = len(env)
		env = append(env, kv)
	}
	if len(env) > 0 {
		env = append([]string{fmt.Sprintf("|%d", len(env))}, env...)
	}
	return strings.Join(append(env, args...), " ")
}

// mounts fills in the mounts of a RUN. A socket of ssh adds SSH_AUTH_SOCK to the environment.
func (r *stageRun) mounts(c *instructions.RunCommand, cmd *command, env envList) ([]Mount, envList, error) {
	var files, secrets, sockets []Mount
	for i, m := range instructions.GetMounts(c) {
		switch m.Type {
		case instructions.MountTypeSecret:
			out, err := r.secret(m)
			if err != nil {
				return nil, nil, err
			}
			secrets = append(secrets, out)
		case instructions.MountTypeSSH:
			if m.Source != "" {
				return nil, nil, errors.New("ssh does not support source")
			}
			target := m.Target
			if target == "" {
				target = fmt.Sprintf("/run/buildkit/ssh_agent.%d", len(sockets))
			}
			if _, ok := env.Get("SSH_AUTH_SOCK"); !ok {
				env = env.set("SSH_AUTH_SOCK", target)
			}
			out := Mount{Type: MountSSH, ID: cmp.Or(m.CacheID, "default"), Target: r.mountPath(target), Required: m.Required}
			setOwner(&out, m, 0o600)
			sockets = append(sockets, out)
		default:
			out, err := r.fileMount(m, cmd.sources[i])
			if err != nil {
				return nil, nil, err
			}
			files = append(files, out)
		}
	}
	slices.SortStableFunc(files, func(a, b Mount) int { return strings.Compare(a.Target, b.Target) })
	return slices.Concat(files, secrets, sockets), env, nil
}

func (r *stageRun) mountPath(target string) string {
	if path.IsAbs(path.Clean(target)) {
		return path.Clean(target)
	}
	return path.Join("/", r.s.dir, target)
}

func (r *stageRun) secret(m *instructions.Mount) (Mount, error) {
	out := Mount{Type: MountSecret, ID: cmp.Or(m.Source, m.CacheID), Target: m.Target, Required: m.Required}
	if out.ID == "" {
		if m.Target == "" {
			return Mount{}, errors.New("one of source, target required")
		}
		out.ID = path.Base(m.Target)
	}
	if m.Env != nil {
		out.Env = *m.Env
	} else if out.Target == "" {
		out.Target = "/run/secrets/" + path.Base(out.ID)
	}
	if out.Target != "" {
		out.Target = r.mountPath(out.Target)
	}
	setOwner(&out, m, 0o400)
	return out, nil
}

// setOwner sets mode and owner of a secret, a socket or a cache. More than
// permissions cannot be set, as with BuildKit.
func setOwner(out *Mount, m *instructions.Mount, mode uint32) {
	if m.Mode != nil {
		mode = uint32(*m.Mode) & 0o777
	}
	out.Mode = &mode
	if m.UID != nil {
		out.UID = uint32(*m.UID)
	}
	if m.GID != nil {
		out.GID = uint32(*m.GID)
	}
}

// fileMount is a bind, cache or tmpfs mount.
func (r *stageRun) fileMount(m *instructions.Mount, from *state) (Mount, error) {
	out := Mount{Type: string(m.Type), Target: r.mountPath(m.Target), ReadOnly: m.ReadOnly}
	switch {
	case m.From != "":
		if !from.done {
			return Mount{}, fmt.Errorf("cannot mount from stage %q to %q, stage needs to be defined before current command", m.From, m.Target)
		}
		out.From = r.g.source(from)
	case m.Type == instructions.MountTypeCache:
		out.From = Source{Kind: FromScratch}
	}
	if out.Target == "/" {
		return Mount{}, fmt.Errorf("invalid mount target %q", out.Target)
	}
	out.Source = path.Join("/", m.Source)
	switch m.Type {
	case instructions.MountTypeTmpfs:
		out.From, out.Source, out.Size = Source{Kind: FromScratch}, "", m.SizeLimit
	case instructions.MountTypeCache:
		out.ID = cmp.Or(m.CacheID, path.Clean(m.Target))
		if ns := r.g.f.args["BUILDKIT_CACHE_MOUNT_NS"]; ns != "" {
			out.ID = ns + "/" + out.ID
		}
		out.Sharing = cmp.Or(string(m.CacheSharing), string(instructions.MountSharingShared))
		// Owner and mode are those of a fresh top directory; with a source
		// they are not looked at.
		if out.Source == "/" && (m.UID != nil || m.GID != nil || m.Mode != nil) {
			out.From = Source{Kind: FromScratch}
			setOwner(&out, m, 0o755)
		}
	}
	return out, nil
}

package dockerfile

import (
	"slices"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// envList is an environment in the order in which variables were last set.
type envList []string // KEY=value

var _ shell.EnvGetter = envList(nil)

// Get is the value of a variable and whether it is set.
func (e envList) Get(key string) (string, bool) {
	for _, kv := range e {
		if k, v := cutEnv(kv); k == key {
			return v, true
		}
	}
	return "", false
}

// Keys are the names of all variables.
func (e envList) Keys() []string {
	out := make([]string, len(e))
	for i, kv := range e {
		out[i], _ = cutEnv(kv)
	}
	return out
}

// set returns e with the variable set, at the end. It does not change e.
func (e envList) set(key, value string) envList {
	return append(e.without(key), key+"="+value)
}

func (e envList) without(key string) envList {
	out := make(envList, 0, len(e)+1)
	for _, kv := range e {
		if k, _ := cutEnv(kv); k != key {
			out = append(out, kv)
		}
	}
	return out
}

func cutEnv(kv string) (key, value string) {
	for i := range len(kv) {
		if kv[i] == '=' {
			return kv[:i], kv[i+1:]
		}
	}
	return kv, ""
}

// setImageEnv sets a variable of an image configuration, at its place if it is there.
func setImageEnv(env []string, key, value string) []string {
	i := slices.IndexFunc(env, func(kv string) bool { k, _ := cutEnv(kv); return k == key })
	if i < 0 {
		return append(env, key+"="+value)
	}
	env[i] = key + "=" + value
	return env
}

// platformArgs are the ARGs that exist in the global scope without a line for
// them. Build args override them.
func platformArgs(target, build ocispec.Platform, args map[string]string, stage string) envList {
	if stage == "" {
		stage = "default"
	}
	var env envList
	for _, kv := range [][2]string{
		{"BUILDPLATFORM", platforms.Format(build)},
		{"BUILDOS", build.OS},
		{"BUILDOSVERSION", build.OSVersion},
		{"BUILDARCH", build.Architecture},
		{"BUILDVARIANT", build.Variant},
		{"TARGETPLATFORM", platforms.FormatAll(target)},
		{"TARGETOS", target.OS},
		{"TARGETOSVERSION", target.OSVersion},
		{"TARGETARCH", target.Architecture},
		{"TARGETVARIANT", target.Variant},
		{"TARGETSTAGE", stage},
	} {
		v := kv[1]
		if given, ok := args[kv[0]]; ok {
			v = given
		}
		env = env.set(kv[0], v)
	}
	return env
}

// metaArgs evaluates ARGs of the global scope, each with what was set before it.
func (f *File) metaArgs(env envList, shlex *shell.Lex, cmds []*instructions.ArgCommand, args map[string]string) (envList, error) {
	for _, cmd := range cmds {
		for _, a := range cmd.Args {
			v, given := args[a.Key]
			switch {
			case given:
			case a.Value != nil:
				var err error
				if v, _, err = shlex.ProcessWord(*a.Value, env); err != nil {
					return nil, f.problem(f.instruction(cmd.Location()[0].Start.Line), err)
				}
			default:
				continue
			}
			env = env.set(a.Key, v)
		}
	}
	return env, nil
}

// proxyEnv is what RUN sees of proxy build args that no ARG declares. Names are
// taken in any case; of several spellings the last by name counts.
func proxyEnv(args map[string]string) []string {
	var out []string
	for _, p := range []struct{ upper, lower string }{
		{"HTTP_PROXY", "http_proxy"}, {"HTTPS_PROXY", "https_proxy"}, {"FTP_PROXY", "ftp_proxy"},
		{"NO_PROXY", "no_proxy"}, {"ALL_PROXY", "all_proxy"},
	} {
		if v := foldedArg(args, p.lower); v != "" {
			out = append(out, p.upper+"="+v, p.lower+"="+v)
		}
	}
	return out
}

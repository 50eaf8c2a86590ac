package dockerfile_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"kaniko-build/executor/internal/dockerfile"
)

var (
	amd64 = ocispec.Platform{OS: "linux", Architecture: "amd64"}
	arm64 = ocispec.Platform{OS: "linux", Architecture: "arm64"}
)

// args makes build args of NAME=value words; a NAME alone has no value.
func args(words ...string) map[string]*string {
	out := map[string]*string{}
	for _, w := range words {
		k, v, ok := strings.Cut(w, "=")
		out[k] = nil
		if ok {
			out[k] = &v
		}
	}
	return out
}

// images are the bases of tests, all for linux/amd64.
var images = map[string]dockerspec.DockerOCIImageConfig{
	"busybox":   {ImageConfig: ocispec.ImageConfig{Env: []string{"PATH=/bin"}, Cmd: []string{"sh"}}},
	"busybox:1": {},
	"relative":  {ImageConfig: ocispec.ImageConfig{WorkingDir: "app", User: "u"}},
	"copies": {DockerOCIImageConfigExt: dockerspec.DockerOCIImageConfigExt{OnBuild: []string{
		"COPY --from=tools /t /t", "RUN --mount=from=busybox,target=/b true"}}},
	"broken": {DockerOCIImageConfigExt: dockerspec.DockerOCIImageConfigExt{OnBuild: []string{"COPY onlyone"}}},
	"tools":  {},
}

func load(ref dockerfile.ImageRef) (*dockerspec.DockerOCIImage, error) {
	name := ref.Ref
	if ref.Context != "" {
		var ok bool
		if name, ok = strings.CutPrefix(ref.Context, "img-"); !ok {
			return nil, nil // a directory
		}
	}
	c, ok := images[strings.TrimSuffix(name, ":latest")]
	if !ok {
		return nil, errors.New("not found")
	}
	img := &dockerspec.DockerOCIImage{Config: c}
	img.Platform = amd64
	return img, nil
}

func resolve(t testing.TB, text string, o dockerfile.Options) (*dockerfile.Program, error) {
	t.Helper()
	o.BuildPlatform = amd64
	f, _ := dockerfile.Parse([]byte(text), o) // Resolve gives its error
	return f.Resolve(load)
}

// target resolves a text that is right and returns the last stage.
func target(t testing.TB, text string, o dockerfile.Options) *dockerfile.Stage {
	t.Helper()
	p, err := resolve(t, text, o)
	if err != nil {
		t.Fatalf("%v\nof\n%s", err, text)
	}
	return p.Target()
}

func TestArgsAndEnv(t *testing.T) {
	for _, c := range []struct {
		name, text string
		o          dockerfile.Options
		want       []string // CreatedBy of all steps
	}{
		{name: "an ARG sees the global one only if declared", text: "ARG A=1\nFROM scratch\nLABEL a=$A\nARG A\nLABEL a=$A\n",
			want: []string{"LABEL a=", "ARG A=1", "LABEL a=1"}},
		{name: "a default hides the global scope", text: "ARG A=1\nFROM scratch\nARG A=2\n", want: []string{"ARG A=2"}},
		{name: "a build arg wins everywhere", text: "ARG A=1\nFROM scratch\nARG A=2\nLABEL a=$A\n", o: dockerfile.Options{Args: args("A=3")},
			want: []string{"ARG A=3", "LABEL a=3"}},
		{name: "a build arg without value is not there", text: "FROM scratch\nARG A=2\n", o: dockerfile.Options{Args: args("A")}, want: []string{"ARG A=2"}},
		{name: "stages inherit ARGs", text: "FROM scratch AS a\nARG A=1\nFROM a\nRUN x\n", want: []string{"RUN |1 A=1 /bin/sh -c x # buildkit"}},
		{name: "but an ENV of the base wins again", text: "FROM scratch AS a\nENV A=env\nARG A=arg\nFROM a\nLABEL a=$A\n", want: []string{"LABEL a=env"}},
		{name: "platform args need a line", text: "FROM scratch\nLABEL a=$TARGETARCH\nARG TARGETARCH TARGETSTAGE\nLABEL a=$TARGETARCH\n",
			o: dockerfile.Options{Platform: arm64}, want: []string{"LABEL a=", "ARG TARGETARCH=arm64 TARGETSTAGE=default", "LABEL a=arm64"}},
		{name: "the stage is that of the target", text: "FROM scratch AS x\nARG TARGETSTAGE\n", want: []string{"ARG TARGETSTAGE=x"}},
		{name: "one line expands with what was before", text: "FROM scratch\nENV A=1\nENV A=2 B=$A\n", want: []string{"ENV A=1", "ENV A=2 B=1"}},
		{name: "patterns", text: "FROM scratch\nENV A=foo.tar.gz\nLABEL a=${A%.*} b=${A%%.*} c=${A#*.} d=${A##*.} e=${A/o/0} f=${A//o/0} g=${X:-y} h=${X-} i=${A:+z}\n",
			want: []string{"ENV A=foo.tar.gz", "LABEL a=foo.tar b=foo c=tar.gz d=gz e=f0o.tar.gz f=f00.tar.gz g=y h= i=z"}},
		{name: "no expansion in commands", text: "FROM scratch\nENV A=1\nCMD [\"$A\"]\nSHELL [\"$A\"]\nHEALTHCHECK CMD $A\nMAINTAINER $A\n",
			want: []string{"ENV A=1", `CMD ["$A"]`, "SHELL [$A]",
				"HEALTHCHECK {Test:[CMD-SHELL $A] Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}", "MAINTAINER $A"}},
		{name: "one word may be several ports", text: "FROM scratch\nENV P=\"80 90-91/udp\"\nEXPOSE $P 7\n",
			want: []string{"ENV P=80 90-91/udp", "EXPOSE [80/tcp 90/udp 91/udp 7/tcp]"}},
		{name: "the number of ARGs counts names", text: "FROM scratch\nARG A=1\nARG B\nARG A=2\nRUN [\"x\"]\n",
			want: []string{"ARG A=1", "ARG B", "ARG A=2", "RUN |2 A=2 B= x # buildkit"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, s := range target(t, c.text, c.o).Steps {
				got = append(got, s.CreatedBy)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("steps are %q, want %q", got, c.want)
			}
		})
	}
}

func TestRunEnvironmentOrder(t *testing.T) {
	st := target(t, "FROM busybox\nENV A=1 B=2\nARG C=3\nENV A=4\nRUN --mount=type=ssh x\n", dockerfile.Options{
		Args: args("http_proxy=p", "NO_PROXY=n")})
	run := st.Steps[len(st.Steps)-1].Run
	if want := []string{"PATH=/bin", "B=2", "C=3", "A=4", "SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0"}; !slices.Equal(run.Env, want) {
		t.Errorf("env is %q, want %q", run.Env, want)
	}
	if want := []string{"HTTP_PROXY=p", "http_proxy=p", "NO_PROXY=n", "no_proxy=n"}; !slices.Equal(run.ProxyEnv, want) {
		t.Errorf("proxies are %q, want %q", run.ProxyEnv, want)
	}
	if want := []string{"PATH=/bin", "A=4", "B=2"}; !slices.Equal(st.Config.Config.Env, want) {
		t.Errorf("env of the image is %q, want %q", st.Config.Config.Env, want)
	}
}

func TestMountDefaults(t *testing.T) {
	mode := func(m uint32) *uint32 { return &m }
	scratch := dockerfile.Source{Kind: dockerfile.FromScratch}
	for _, c := range []struct {
		flag string
		want dockerfile.Mount
	}{
		{"target=x", dockerfile.Mount{Type: "bind", Source: "/", Target: "/w/x", ReadOnly: true}},
		{"source=../a,target=/x,rw", dockerfile.Mount{Type: "bind", Source: "/a", Target: "/x"}},
		{"type=cache,target=c", dockerfile.Mount{Type: "cache", From: scratch, Source: "/", Target: "/w/c", ID: "c", Sharing: "shared"}},
		{"type=cache", dockerfile.Mount{Type: "cache", From: scratch, Source: "/", Target: "/w", ID: ".", Sharing: "shared"}},
		{"type=cache,target=/c,id=i,sharing=LOCKED,uid=5,ro", dockerfile.Mount{Type: "cache", From: scratch, Source: "/", Target: "/c", ID: "i", Sharing: "locked", UID: 5, Mode: mode(0o755), ReadOnly: true}},
		{"type=cache,target=/c,source=s,uid=5", dockerfile.Mount{Type: "cache", From: scratch, Source: "/s", Target: "/c", ID: "/c", Sharing: "shared"}},
		{"type=tmpfs,target=/t,size=2m", dockerfile.Mount{Type: "tmpfs", From: scratch, Target: "/t", Size: 2 << 20}},
		{"type=secret,id=d/s", dockerfile.Mount{Type: "secret", ID: "d/s", Target: "/run/secrets/s", ReadOnly: false, Mode: mode(0o400)}},
		{"type=secret,target=/k,required", dockerfile.Mount{Type: "secret", ID: "k", Target: "/k", Required: true, Mode: mode(0o400)}},
		{"type=secret,id=s,env=E", dockerfile.Mount{Type: "secret", ID: "s", Env: "E", Mode: mode(0o400)}},
		{"type=secret,id=s,env=E,target=f,mode=0440,gid=7", dockerfile.Mount{Type: "secret", ID: "s", Env: "E", Target: "/w/f", GID: 7, Mode: mode(0o440)}},
		{"type=ssh", dockerfile.Mount{Type: "ssh", ID: "default", Target: "/run/buildkit/ssh_agent.0", Mode: mode(0o600)}},
		{"type=ssh,id=x,target=/s,uid=1", dockerfile.Mount{Type: "ssh", ID: "x", Target: "/s", UID: 1, Mode: mode(0o600)}},
		{"type=$T,target=/$T", dockerfile.Mount{Type: "tmpfs", From: scratch, Target: "/tmpfs"}},
	} {
		st := target(t, "FROM scratch\nENV T=tmpfs\nWORKDIR /w\nRUN --mount="+c.flag+" x\n", dockerfile.Options{})
		got, want := st.Steps[2].Run.Mounts[0], c.want
		if fmt.Sprint(show(t, got)) != fmt.Sprint(show(t, want)) {
			t.Errorf("%s is %s, want %s", c.flag, show(t, got), show(t, want))
		}
	}
}

func show(t testing.TB, v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestMountsAreSortedByTarget(t *testing.T) {
	st := target(t, "FROM scratch\nRUN --mount=type=secret,id=s --mount=type=tmpfs,target=/b/c --mount=target=/b x\n", dockerfile.Options{})
	var got []string
	for _, m := range st.Steps[0].Run.Mounts {
		got = append(got, m.Target)
	}
	if want := []string{"/b", "/b/c", "/run/secrets/s"}; !slices.Equal(got, want) {
		t.Errorf("targets are %q, want %q", got, want)
	}
}

func TestCopyWords(t *testing.T) {
	for _, c := range []struct{ line, want, createdBy string }{
		{"COPY a b d/", `{"from":{},"sources":["a","b"],"dest":"/w/d/"}`, "COPY a b d/ # buildkit"},
		{"COPY a .", `{"from":{},"sources":["a"],"dest":"/w/"}`, "COPY a . # buildkit"},
		{"COPY a /x/../y/.", `{"from":{},"sources":["a"],"dest":"/y/."}`, "COPY a /x/../y/. # buildkit"},
		{"COPY --link --chown=1:2 --exclude=*.o --exclude=t a /", `{"from":{},"sources":["a"],"dest":"/","chown":"1:2","link":true,"exclude":["*.o","t"]}`, "COPY --chown=1:2 a / # buildkit"},
		{"COPY --link --chmod=u=rwX a /", `{"from":{},"sources":["a"],"dest":"/","chmod":"u=rwX"}`, "COPY --chmod=u=rwX a / # buildkit"},
		{"COPY --parents a/./b/*.c /", `{"from":{},"sources":["a/./b/*.c"],"dest":"/","parents":true}`, "COPY --parents a/./b/*.c / # buildkit"},
		{"COPY --from=busybox /bin/sh /", `{"from":{"kind":"image","image":{"ref":"busybox","platform":{"architecture":"amd64","os":"linux"},"pos":{"file":"Dockerfile","line":4,"col":6},"use":"COPY --from"}},"sources":["/bin/sh"],"dest":"/"}`, "COPY /bin/sh / # buildkit"},
		{"COPY --from=scratch a /", `{"from":{"kind":"scratch"},"sources":["a"],"dest":"/"}`, "COPY a / # buildkit"},
		{"COPY <<A <<\"B\" /d/\n$X $Y\nA\n$X\nB", `{"from":{},"inline":[{"path":"A","mode":420,"data":"eCAK"},{"path":"B","mode":420,"data":"JFgK"}],"dest":"/d/"}`, "COPY <<A <<B /d/ # buildkit"},
		{"ADD a http://h/p/f.tar?q=1 b /d/", `{"add":true,"from":{},"sources":["a","b"],"remote":[{"before":1,"url":"http://h/p/f.tar?q=1","name":"f.tar"}],"dest":"/d/"}`, "ADD a http://h/p/f.tar?q=1 b /d/ # buildkit"},
		{"ADD http://h/ /d/", `{"add":true,"from":{},"remote":[{"url":"http://h/","name":"__unnamed__"}],"dest":"/d/"}`, "ADD http://h/ /d/ # buildkit"},
		{"ADD --unpack=false a /", `{"add":true,"from":{},"sources":["a"],"dest":"/","unpack":false}`, "ADD a / # buildkit"},
		{"ADD --keep-git-dir https://h/r.git#v1:s/../t /g", `{"add":true,"from":{},"remote":[{"git":{"remote":"https://h/r.git","ref":"v1","subdir":"t","keep_git_dir":true}}],"dest":"/g"}`, "ADD https://h/r.git#v1:s/../t /g # buildkit"},
		{"ADD git@h:o/r.git?branch=b&submodules=false&commit=abc /g", `{"add":true,"from":{},"remote":[{"git":{"remote":"git@h:o/r.git","ref":"refs/heads/b","checksum":"abc","no_submodules":true}}],"dest":"/g"}`, "ADD git@h:o/r.git?branch=b&submodules=false&commit=abc /g # buildkit"},
		{"ADD github.com/o/r.git /g", `{"add":true,"from":{},"sources":["github.com/o/r.git"],"dest":"/g"}`, "ADD github.com/o/r.git /g # buildkit"},
	} {
		st := target(t, "FROM scratch\nWORKDIR /w\nENV X=x\n"+c.line+"\n", dockerfile.Options{})
		step := st.Steps[len(st.Steps)-1]
		if got := show(t, step.Copy); got != c.want {
			t.Errorf("%s is\n%s\nwant\n%s", c.line, got, c.want)
		}
		if step.CreatedBy != c.createdBy || step.Empty {
			t.Errorf("%s is recorded as %q (empty %v), want %q", c.line, step.CreatedBy, step.Empty, c.createdBy)
		}
	}
}

func TestRunHeredocs(t *testing.T) {
	for _, c := range []struct{ text, argv, files string }{
		{"RUN <<E\na\n\tb\nE\n", `["/bin/sh","-c","a\n\tb\n"]`, "null"},
		{"RUN <<-E\n\ta\n\tE\n", `["/bin/sh","-c","a\n"]`, "null"},
		{"RUN <<E\n#!/bin/x\n1\nE\n", `["/dev/pipes/E"]`, `[{"path":"/dev/pipes/E","mode":493,"data":"IyEvYmluL3gKMQo="}]`},
		{"RUN cat <<A <<B\n1\nA\n2\nB\n", `["/bin/sh","-c","cat \u003c\u003cA \u003c\u003cB\n1\nA\n2\nB"]`, "null"},
	} {
		run := target(t, "FROM scratch\n"+c.text, dockerfile.Options{}).Steps[0].Run
		if c.files != "null" { // a script is run by the shell, which finds it by its path
			c.argv = `["/bin/sh","-c","/dev/pipes/E"]`
		}
		if got := show(t, run.Argv); got != c.argv {
			t.Errorf("%q runs %s, want %s", c.text, got, c.argv)
		}
		if got := show(t, run.Files); got != c.files {
			t.Errorf("%q has files %s, want %s", c.text, got, c.files)
		}
	}
}

func TestProblems(t *testing.T) {
	for _, c := range []struct {
		name, text string
		o          dockerfile.Options
		want       []string // beginnings of problems, in order
	}{
		{"all syntax errors at once", "FROM scratch\nRUNN x\nENV A\nCOPY a\nRUN --mount=type=cash,target=/x --nonsense y\nLABEL a=b\nADD --checksumm=1 a b\n", dockerfile.Options{}, []string{
			"Dockerfile:2:1: unknown instruction: RUNN (did you mean RUN?)",
			"Dockerfile:3:1: ENV must have two arguments, in ENV A",
			"Dockerfile:4:1: COPY requires at least two arguments",
			"Dockerfile:5:33: unknown flag: --nonsense",
			"Dockerfile:7:5: unknown flag: --checksumm (did you mean checksum?)"}},
		{"a broken FROM does not make its stage homeless", "FROM scratch AS 1\nRUN x\nRUNN y\n", dockerfile.Options{}, []string{
			"Dockerfile:1:17: invalid name for build stage", "Dockerfile:3:1: unknown instruction"}},
		{"an unclosed heredoc", "FROM scratch\nRUN <<E\nx\n", dockerfile.Options{}, []string{"Dockerfile:2:1: unterminated heredoc"}},
		{"directives", "# escape=x\nFROM scratch\n", dockerfile.Options{}, []string{"Dockerfile:1:10: invalid escape token"}},
		{"a directive twice", "# escape=\\\n# escape=`\nFROM scratch\n", dockerfile.Options{}, []string{"Dockerfile:2:1: only one escape parser directive can be used"}},
		{"another frontend", "# syntax=example.com/mine:1\nFROM scratch\n", dockerfile.Options{}, []string{`Dockerfile:1:1: the syntax directive asks for the frontend "example.com/mine:1"`}},
		{"another frontend by build arg", "FROM scratch\n", dockerfile.Options{Args: args("BUILDKIT_SYNTAX=x/y")}, []string{"Dockerfile:1:1: the build arg BUILDKIT_SYNTAX asks"}},
		{"check options", "# check=foo\nFROM scratch\n", dockerfile.Options{}, []string{"Dockerfile:1:1: failed to parse check options: invalid check option"}},
		{"expansion errors of all stages", "FROM scratch AS a\nLABEL a=\"${X:?give X}\"\nCOPY ${Y?} /\nFROM scratch\nCOPY --from=a / /\nUSER ${Z:?}\n", dockerfile.Options{}, []string{
			"Dockerfile:2:9: failed to process \"\\\"${X:?give X}\\\"\": X: give X, in LABEL a=", "Dockerfile:3:6: failed to process \"${Y?}\": Y: is not allowed to be unset", "Dockerfile:6:6:"}},
		{"unneeded stages may be wrong", "FROM scratch AS a\nLABEL a=${X:?}\nFROM scratch\n", dockerfile.Options{}, nil},
		{"but not in the names of images", "FROM Bad\nFROM scratch\n", dockerfile.Options{}, []string{`Dockerfile:1:6: failed to parse stage name "Bad": invalid reference format`}},
		{"a later stage", "FROM b\nFROM scratch AS b\nCOPY --from=0 / /\n", dockerfile.Options{}, []string{
			"Dockerfile:1:6: b: not found\n  hint: stage b is defined below, on line 2: move it above"}},
		{"copy from a later stage", "FROM scratch AS a\nCOPY --from=b / /\nFROM scratch AS b\nFROM a\n", dockerfile.Options{}, []string{
			`Dockerfile:2:13: cannot copy from stage "b", it needs to be defined before current stage "a"`}},
		{"mount from a later stage", "FROM scratch AS a\nRUN --mount=from=b,target=/x y\nFROM scratch AS b\nFROM a\n", dockerfile.Options{}, []string{
			`Dockerfile:2:18: cannot mount from stage "b" to "/x", stage needs to be defined before current command`}},
		{"circles", "FROM scratch AS a\nCOPY --from=b / /\nFROM scratch AS b\nRUN --mount=from=a,target=/x y\n", dockerfile.Options{}, []string{
			"Dockerfile:4:1: circular dependency detected on stage: a (a -> b -> a)"}},
		{"hints name what is meant", "FROM scratch\nLABEL a\nCOPY --unpack a b\nCOPY --FROM=x a b\nCOPY --link=1 a b\nHEALTHCHECK --retries=x CMD y\n", dockerfile.Options{}, []string{
			"Dockerfile:2:1: LABEL must have two arguments, in LABEL a\n  hint: write LABEL name=value",
			"Dockerfile:3:6: unknown flag: --unpack\n  hint: only ADD has it",
			"Dockerfile:4:6: unknown flag: --FROM",
			"Dockerfile:5:6: expecting boolean value for flag --link, not: 1\n  hint: write the flag alone",
			"Dockerfile:6:23: strconv.ParseInt: parsing \"x\": invalid syntax\n  hint: write a whole number"}},
		{"hints of mounts and variables", "FROM scratch\nRUN --mount=type=cache,target=/x,mode=9 y\n", dockerfile.Options{}, []string{"Dockerfile:2:1: invalid value 9 for mode\n  hint: write the mode in octal"}},
		{"an unclosed brace", "FROM scratch\nENV a=${b\n", dockerfile.Options{}, []string{"Dockerfile:2:7: failed to process \"${b\": unsupported modifier (\ufffd) in substitution, in ENV a=${b\n  hint: close the brace"}},
		{"privileges", "FROM busybox\nRUN --security=insecure x\n", dockerfile.Options{}, []string{"Dockerfile:2:5: security.insecure is not allowed"}},
		{"devices that are required", "FROM busybox\nRUN --device=vendor.com/gpu=0,required x\n", dockerfile.Options{}, []string{
			`Dockerfile:2:5: required device "vendor.com/gpu=0" is not registered`}},
		{"devices that may be missing", "FROM busybox\nRUN --device=vendor.com/gpu x\n", dockerfile.Options{}, nil},
		{"an invalid index", "FROM scratch\nCOPY --from=7 / /\n", dockerfile.Options{}, []string{"Dockerfile:2:1: invalid stage index 7"}},
		{"variables in mounts", "FROM scratch\nRUN --mount=from=$X,target=/x y\n", dockerfile.Options{}, []string{"Dockerfile:2:13: 'from' doesn't support variable expansion"}},
		{"signals", "FROM scratch\nSTOPSIGNAL SIGNOPE\n", dockerfile.Options{}, []string{"Dockerfile:2:1: invalid signal: SIGNOPE"}},
		{"names of owners in links", "FROM scratch\nCOPY --link --chown=me a /\n", dockerfile.Options{}, []string{"Dockerfile:2:13: --chown=me: user and group names can't be resolved when used with --link"}},
		{"modes", "FROM scratch\nCOPY --chmod=99999 a /\n", dockerfile.Options{}, []string{"Dockerfile:2:14: invalid chmod parameter: '99999'. it should be octal string"}},
		{"checksums", "FROM scratch\nADD --checksum=sha256:0 http://h/f /\nADD --checksum=x a b /\n", dockerfile.Options{}, []string{
			"Dockerfile:2:1: invalid checksum digest length", "Dockerfile:3:1: checksum can't be specified for multiple sources"}},
		{"COPY of a URL", "FROM scratch\nCOPY http://h/f /\nCOPY https://h/r.git /\n", dockerfile.Options{}, []string{
			"Dockerfile:2:1: source can't be a URL for COPY", "Dockerfile:3:1: source can't be a git ref for COPY"}},
		{"triggers say where they are written", "FROM scratch AS a\nONBUILD COPY one\nFROM a\n", dockerfile.Options{}, []string{
			"Dockerfile:3:1: ONBUILD trigger `COPY one` of a (Dockerfile:2:1): COPY requires at least two arguments"}},
		{"triggers of images", "FROM broken\n", dockerfile.Options{}, []string{"Dockerfile:1:1: ONBUILD trigger `COPY onlyone` of broken: COPY requires"}},
		{"a recorded trigger may be wrong", "FROM scratch\nONBUILD COPY one\n", dockerfile.Options{}, nil},
		{"platforms", "FROM --platform=$BULIDPLATFORM scratch\n", dockerfile.Options{}, []string{
			"Dockerfile:1:17: empty platform value from expression $BULIDPLATFORM (did you mean BUILDPLATFORM?)"}},
		{"windows", "FROM scratch\n", dockerfile.Options{Platform: ocispec.Platform{OS: "windows", Architecture: "amd64"}}, []string{"Dockerfile:1:1: platform windows/amd64 is not supported"}},
		{"targets", "FROM scratch AS build\n", dockerfile.Options{Target: "biuld"}, []string{`Dockerfile: target stage "biuld" could not be found (did you mean build?)`}},
		{"an empty volume", "FROM scratch\nVOLUME $X\n", dockerfile.Options{}, []string{"Dockerfile:2:1: VOLUME specified can not be an empty string"}},
		{"the epoch", "ARG SOURCE_DATE_EPOCH=x\nFROM scratch\n", dockerfile.Options{}, []string{"Dockerfile:1:1: invalid SOURCE_DATE_EPOCH: x"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := resolve(t, c.text, c.o)
			if c.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			got := problems(err)
			if len(got) != len(c.want) {
				t.Fatalf("got %d problems, want %d:\n%v", len(got), len(c.want), err)
			}
			for i, p := range got {
				if !strings.HasPrefix(p.Error(), c.want[i]) {
					t.Errorf("problem %d is\n%v\nwant\n%v", i, p, c.want[i])
				}
			}
		})
	}
}

func TestSyntaxDirectiveOfOurOwnLanguage(t *testing.T) {
	for _, ref := range []string{"docker/dockerfile", "docker/dockerfile:1", "docker/dockerfile:1.7-labs", "docker.io/docker/dockerfile:1.20",
		"docker/dockerfile@sha256:" + strings.Repeat("0", 64), "docker/dockerfile:1 with options", "docker/dockerfile-upstream:master"} {
		if _, err := resolve(t, "# syntax="+ref+"\nFROM scratch\n", dockerfile.Options{}); err != nil {
			t.Errorf("%s: %v", ref, err)
		}
	}
}

func TestTriggersBringStagesAndImages(t *testing.T) {
	// The stage "tools" is needed only by a trigger of the image "copies".
	f, err := dockerfile.Parse([]byte("FROM busybox AS tools\nRUN make\nFROM copies\nRUN own\n"), dockerfile.Options{BuildPlatform: amd64})
	if err != nil {
		t.Fatal(err)
	}
	if got := f.Images(); len(got) != 1 || got[0].Ref != "copies" {
		t.Errorf("images are %v, want copies alone", got)
	}
	for range 2 { // a File may be resolved again
		p, err := f.Resolve(load)
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Stages) != 2 || p.Stages[0].Name != "tools" {
			t.Fatalf("stages are %s", show(t, p.Stages))
		}
		steps := p.Target().Steps
		if len(steps) != 3 || !steps[0].Trigger || steps[0].Copy.From.Kind != dockerfile.FromStage || steps[0].Copy.From.Stage != 0 || steps[0].Pos.Line != 3 {
			t.Errorf("steps are %s", show(t, steps))
		}
		var refs []string
		for _, r := range p.Images() {
			refs = append(refs, r.Ref)
		}
		if want := []string{"busybox", "copies"}; !slices.Equal(refs, want) {
			t.Errorf("images of the program are %q, want %q", refs, want)
		}
		if len(p.Target().Config.Config.OnBuild) != 0 {
			t.Error("triggers are still in the image")
		}
	}
}

func TestUnneededImagesAreNotAskedFor(t *testing.T) {
	f, err := dockerfile.Parse([]byte("FROM nowhere AS unused\nFROM busybox\nCOPY --from=tools / /\n"), dockerfile.Options{BuildPlatform: amd64})
	if err != nil {
		t.Fatal(err)
	}
	var asked []string
	if _, err := f.Resolve(func(r dockerfile.ImageRef) (*dockerspec.DockerOCIImage, error) {
		asked = append(asked, r.Ref)
		return load(r)
	}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"busybox", "tools"}; !slices.Equal(asked, want) {
		t.Errorf("asked for %q, want %q", asked, want)
	}
}

func TestNamedContexts(t *testing.T) {
	for _, c := range []struct {
		name, text string
		contexts   []string
		base       string
		from       []string // of the copies; a stage that begins with a directory copies that first
	}{
		{"before a stage", "FROM nowhere AS files\nRUN false\nFROM scratch\nCOPY --from=files / /\n", []string{"files"}, `{"kind":"scratch"}`, []string{`{"context":"files"}`}},
		{"before a stage, by number", "FROM nowhere AS files\nRUN false\nFROM scratch\nCOPY --from=0 / /\n", []string{"files"}, `{"kind":"scratch"}`, []string{`{"context":"files"}`}},
		{"as base of a stage", "FROM nowhere AS files\nFROM files\nCOPY a /\n", []string{"files"}, `{"kind":"scratch"}`, []string{`{"context":"files"}`, `{}`}},
		{"before an image", "FROM alpine\nCOPY --from=docker.io/library/alpine:latest / /\n", []string{"alpine"}, `{"kind":"scratch"}`, []string{`{"context":"alpine"}`, `{"context":"alpine"}`}},
		{"with a tag", "FROM alpine:3\nCOPY a /\n", []string{"alpine:3"}, `{"kind":"scratch"}`, []string{`{"context":"alpine:3"}`, `{}`}},
		{"one for the platform first", "FROM x\nCOPY a /\n", []string{"x", "x::linux/amd64"}, `{"kind":"scratch"}`, []string{`{"context":"x::linux/amd64"}`, `{}`}},
		{"an image", "FROM img-busybox\nCOPY a /\n", []string{"img-busybox"}, `{"context":"img-busybox"}`, []string{`{}`}},
		{"not for scratch", "FROM scratch\nCOPY --from=scratch / /\n", []string{"scratch"}, `{"kind":"scratch"}`, []string{`{"kind":"scratch"}`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := target(t, c.text, dockerfile.Options{Contexts: c.contexts})
			if got := show(t, st.Base); got != c.base {
				t.Errorf("base is %s, want %s", got, c.base)
			}
			var from []string
			for _, s := range st.Steps {
				from = append(from, show(t, s.Copy.From))
			}
			if !slices.Equal(from, c.from) {
				t.Errorf("copies are from %q, want %q", from, c.from)
			}
			if len(st.History) != st.BaseHistory+len(st.Steps) {
				t.Errorf("%d records for %d steps on %d of the base", len(st.History), len(st.Steps), st.BaseHistory)
			}
		})
	}
	st := target(t, "FROM nowhere AS img-busybox\nRUN false\n", dockerfile.Options{Contexts: []string{"img-busybox"}})
	if len(st.Steps) != 0 || !slices.Equal(st.Config.Config.Cmd, []string{"sh"}) {
		t.Errorf("a target that a context stands for is %s", show(t, st))
	}
}

func TestFromFindsStagesInAnyCase(t *testing.T) {
	text := "ARG PICK=Base\nFROM busybox AS Base\nFROM ${PICK} AS last\nCOPY --from=0 /b /n\nCOPY --from=BASE /b /u\n"
	for _, c := range []struct {
		name, text string
		o          dockerfile.Options
		images     []string
	}{
		{"of an ARG", text, dockerfile.Options{}, []string{"busybox"}},
		{"of a build arg", text, dockerfile.Options{Args: args("PICK=BASE")}, []string{"busybox"}},
		{"as it is written", "FROM busybox AS base\nFROM BASE\n", dockerfile.Options{}, []string{"busybox"}},
		{"but images as they are written", "FROM busybox AS base\nFROM Example.com/base\n", dockerfile.Options{}, []string{"Example.com/base"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := dockerfile.Parse([]byte(c.text), c.o)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, i := range f.Images() {
				got = append(got, i.Ref)
			}
			if !slices.Equal(got, c.images) {
				t.Errorf("images are %q, want %q", got, c.images)
			}
			var refs []string
			for _, r := range f.References() {
				if r.Unresolved {
					t.Errorf("%s is unresolved", r.Name)
				}
				refs = append(refs, r.Name)
			}
			if !slices.Equal(refs, c.images) {
				t.Errorf("references are %q, want %q", refs, c.images)
			}
		})
	}
}

func TestNamesOfOwnersNeedAFileSystem(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"COPY above scratch", "FROM scratch\nCOPY --chown=app f /\n", "Dockerfile:2:6: --chown=app: invalid user index -1"},
		{"a group", "FROM scratch\nADD --chown=1:app f /\n", "Dockerfile:2:5: --chown=1:app: invalid user index -1"},
		{"WORKDIR above scratch", "FROM scratch\nUSER app\nWORKDIR /w\n", "Dockerfile:3:1: user app: invalid user index -1"},
		{"a stage that is only configuration", "FROM scratch AS a\nUSER 1\nFROM a\nCOPY --chown=app f /\n", "Dockerfile:4:6: --chown=app: invalid user index -1"},
		{"after a first file", "FROM scratch\nCOPY f /\nCOPY --chown=app f /\n", ""},
		{"after a linked one", "FROM scratch\nCOPY --link f /\nCOPY --chown=app f /\n", ""},
		{"in a stage above that has files", "FROM scratch AS a\nWORKDIR /w\nFROM a\nCOPY --chown=app f /\n", ""},
		{"numbers and root", "FROM scratch\nCOPY --chown=root:5 f /\n", ""},
		{"no user", "FROM scratch\nCOPY --chown=:5 --link f /\n", ""},
		{"an image", "FROM busybox\nCOPY --chown=app f /\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := dockerfile.Parse([]byte(c.text), dockerfile.Options{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.Resolve(func(dockerfile.ImageRef) (*dockerspec.DockerOCIImage, error) {
				return &dockerspec.DockerOCIImage{}, nil
			})
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestReferences(t *testing.T) {
	f, err := dockerfile.Parse([]byte("ARG V\nFROM busybox:${V:-1} AS a\nCOPY --from=tools / /\nRUN --mount=from=files,target=/x y\nFROM ${NO} AS no\nFROM unneeded\nFROM a\nCOPY --from=a / /\nCOPY --from=no / /\n"),
		dockerfile.Options{Contexts: []string{"files"}})
	if err == nil {
		t.Fatal("a blank base is no error")
	}
	var got []string
	for _, r := range f.References() {
		got = append(got, fmt.Sprintf("%s %s %d context=%v unresolved=%v", r.Use, r.Name, r.Pos.Line, r.Context, r.Unresolved))
	}
	want := []string{"FROM busybox:1 2 context=false unresolved=false", "COPY --from tools 3 context=false unresolved=false",
		"RUN --mount=from files 4 context=true unresolved=false", "FROM ${NO} 5 context=false unresolved=true"}
	if !slices.Equal(got, want) {
		t.Errorf("references are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestCheckJudgesWhatNeedsNoImage(t *testing.T) {
	for _, c := range []struct {
		name, text string
		o          dockerfile.Options
		rules      []string
		problem    string
	}{
		{name: "ignored files", text: "FROM nowhere\nCOPY x /\n", o: dockerfile.Options{Ignore: []string{"x"}}, rules: []string{"2 CopyIgnoredFile"}},
		{name: "stages that are not needed", text: "FROM nowhere\nENV k v\nFROM scratch\n", o: dockerfile.Options{AllStages: true}, rules: []string{"2 LegacyKeyValueFormat"}},
		{name: "a variable may come from the image", text: "FROM golang AS a\nENV PATH=$GOPATH/bin\nFROM a\nUSER $APP_UID\nVOLUME $DATA\nCOPY x ${HERE:?}\n"},
		{name: "from scratch it may not", text: "FROM scratch\nCOPY $X /\n", rules: []string{"2 UndefinedVar"}},
		{name: "mistakes without variables stay", text: "FROM golang\nSTOPSIGNAL SIGNOPE\nVOLUME $DATA\n", problem: "Dockerfile:2:1: invalid signal"},
		{name: "warnings that are mistakes", text: "# check=error=true\nFROM golang\nENV A=$B\nMAINTAINER m\n", rules: []string{"4 MaintainerDeprecated"},
			problem: "Dockerfile:4:1: lint violation found for rules: MaintainerDeprecated"},
		{name: "no warnings, no mistake", text: "# check=error=true\nFROM golang\nENV A=$B\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, _ := dockerfile.Parse([]byte(c.text), c.o) // Check gives its error
			warnings, err := f.Check()
			var got []string
			for _, w := range warnings {
				got = append(got, fmt.Sprintf("%d %s", w.Pos.Line, w.Rule))
			}
			if !slices.Equal(got, c.rules) {
				t.Errorf("got %q, want %q", got, c.rules)
			}
			switch {
			case c.problem == "" && err != nil:
				t.Errorf("got the error %v", err)
			case c.problem != "" && (err == nil || !strings.HasPrefix(err.Error(), c.problem)):
				t.Errorf("got the error %v, want %s", err, c.problem)
			}
		})
	}
}

func TestReferencesOfNamesWithoutValue(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"nothing is left", "FROM ${NO}\n", "${NO} unresolved"},
		{"a part is left", "ARG REG\nFROM ${REG}/app:1\n", "${REG}/app:1 unresolved"},
		{"a name is left", "FROM app${NO}\n", "app"},
		{"a wrong value is a mistake", "ARG A=Bad\nFROM $A\n", ""},
		{"a wrong name is a mistake", "FROM Bad\n", ""},
		{"a platform", "FROM --platform=linux/arm64 app\n", "app linux/arm64"},
		{"the platform of the build", "FROM --platform=$BUILDPLATFORM app\n", "app linux/amd64"},
		{"no platform of a copy", "FROM --platform=linux/arm64 scratch\nCOPY --from=app / /\n", "app"},
		{"a platform that is none", "FROM --platform=$NO app\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := dockerfile.Parse([]byte(c.text), dockerfile.Options{BuildPlatform: amd64})
			var got []string
			for _, r := range f.References() {
				words := []string{r.Name}
				if r.Platform != nil {
					words = append(words, r.Platform.OS+"/"+r.Platform.Architecture)
				}
				if r.Unresolved {
					words = append(words, "unresolved")
				}
				got = append(got, strings.Join(words, " "))
			}
			if strings.Join(got, ", ") != c.want {
				t.Errorf("got %q, want %q (%v)", got, c.want, err)
			}
			if (err != nil) != (c.want == "" || strings.HasSuffix(c.want, "unresolved")) {
				t.Errorf("got the error %v", err)
			}
		})
	}
}

func TestBaseConfigIsTakenOver(t *testing.T) {
	st := target(t, "FROM relative\nWORKDIR sub\nRUN x\n", dockerfile.Options{Labels: map[string]string{"l": "v"}})
	run := st.Steps[1].Run
	if run.User != "u" || run.Dir != "/app/app/sub" || st.Config.Config.WorkingDir != "/app/app/sub" || st.Config.Config.Labels["l"] != "v" {
		t.Errorf("stage is %s", show(t, st))
	}
	if st.Steps[0].Workdir.User != "u" {
		t.Errorf("WORKDIR is %s", show(t, st.Steps[0].Workdir))
	}
}

func TestEpochFromAStage(t *testing.T) {
	text := "FROM scratch AS src\nARG V=2\nADD https://h/r.git#v$V /\nFROM scratch\nARG SOURCE_DATE_EPOCH\n"
	sec := int64(1234)
	var asked dockerfile.Remote
	p, err := resolve(t, text, dockerfile.Options{Args: args("SOURCE_DATE_EPOCH=src"), RemoteEpoch: func(r dockerfile.Remote) (*int64, error) {
		asked = r
		return &sec, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if asked.Git == nil || asked.Git.Ref != "v2" || *p.Epoch != sec || p.Target().Steps[0].CreatedBy != "ARG SOURCE_DATE_EPOCH=1234" {
		t.Errorf("asked for %s, got %s", show(t, asked), show(t, p))
	}
	if p, err = resolve(t, text, dockerfile.Options{Args: args("SOURCE_DATE_EPOCH=context")}); err != nil || p.Epoch != nil || p.Target().Steps[0].CreatedBy != "ARG SOURCE_DATE_EPOCH" {
		t.Errorf("a context has no time: got %v, %s", err, show(t, p))
	}
}

func TestCanceledLoadIsNoMistake(t *testing.T) {
	f, err := dockerfile.Parse([]byte("FROM busybox\n"), dockerfile.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Resolve(func(dockerfile.ImageRef) (*dockerspec.DockerOCIImage, error) { return nil, context.Canceled })
	if !errors.Is(err, context.Canceled) || problems(err) != nil {
		t.Errorf("error is %v, want context.Canceled", err)
	}
}

// A text that is taken apart once gives each Dockerfile what it gives alone: stages that
// are expanded do not change it.
func TestSyntaxesAreShared(t *testing.T) {
	text := []byte("ARG N=1\nFROM scratch AS a\nARG N\nCOPY --chown=$N <<EOF /f$N\nline $N\nEOF\nFROM a\nCOPY --from=a /f$N /g\nONBUILD RUN echo $N\n")
	shared := &dockerfile.Syntaxes{}
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			n := fmt.Sprint(i)
			var got [2]string
			for k, s := range []*dockerfile.Syntaxes{nil, shared} {
				f, err := dockerfile.Parse(text, dockerfile.Options{Args: map[string]*string{"N": &n}, Syntaxes: s})
				if err != nil {
					t.Error(err)
					return
				}
				p, err := f.Resolve(func(dockerfile.ImageRef) (*dockerspec.DockerOCIImage, error) {
					return nil, errors.New("no image is named")
				})
				if err != nil {
					t.Error(err)
					return
				}
				b, err := json.Marshal(p)
				if err != nil {
					t.Error(err)
				}
				got[k] = string(b)
			}
			if got[0] != got[1] || !strings.Contains(got[1], "/f"+n) {
				t.Errorf("alone it is %s, shared %s", got[0], got[1])
			}
		})
	}
	wait.Wait()
}

func TestTooManyInstructions(t *testing.T) {
	for n, want := range map[int]string{19_999: "", 20_000: "Dockerfile:20001:1: the file has 20001 instructions; 20000 are allowed\n  hint: have a script do it, in one RUN"} {
		_, err := dockerfile.Parse([]byte("FROM scratch\n"+strings.Repeat("LABEL a=b\n", n)), dockerfile.Options{})
		if got := fmt.Sprint(err); got != want && (want != "" || err != nil) {
			t.Errorf("%d and a FROM: %s", n, got)
		}
	}
}

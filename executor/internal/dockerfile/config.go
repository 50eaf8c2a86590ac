package dockerfile

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/sys/signal"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// emptyImage is what FROM scratch begins with.
func emptyImage(p ocispec.Platform) dockerspec.DockerOCIImage {
	img := dockerspec.DockerOCIImage{}
	img.Platform = p
	img.OSFeatures = slices.Clone(p.OSFeatures)
	img.RootFS.Type = "layers"
	img.Config.WorkingDir = "/"
	img.Config.Env = []string{defaultPath}
	return img
}

// cloneImage copies an image so that neither sees changes of the other.
func cloneImage(img dockerspec.DockerOCIImage) dockerspec.DockerOCIImage {
	c := &img.Config
	c.Env = slices.Clone(c.Env)
	c.Cmd = slices.Clone(c.Cmd)
	c.Entrypoint = slices.Clone(c.Entrypoint)
	c.OnBuild = slices.Clone(c.OnBuild)
	c.Shell = slices.Clone(c.Shell)
	c.ExposedPorts = maps.Clone(c.ExposedPorts)
	c.Volumes = maps.Clone(c.Volumes)
	c.Labels = maps.Clone(c.Labels)
	if c.Healthcheck != nil {
		h := *c.Healthcheck
		h.Test = slices.Clone(h.Test)
		c.Healthcheck = &h
	}
	img.OSFeatures = slices.Clone(img.OSFeatures)
	img.History = slices.Clone(img.History)
	return img
}

// exported is a configuration without what depends on layers and time.
func exported(img dockerspec.DockerOCIImage) dockerspec.DockerOCIImage {
	img.Created = nil
	img.RootFS = ocispec.RootFS{}
	img.History = nil
	return img
}

// configure does the instructions that only change the configuration.
func (r *stageRun) configure(c instructions.Command, step *Step) error {
	img := &r.s.image
	config := &img.Config
	switch c := c.(type) {
	case *instructions.MaintainerCommand:
		img.Author = c.Maintainer
		step.CreatedBy = "MAINTAINER " + c.Maintainer
	case *instructions.EnvCommand:
		step.CreatedBy = "ENV"
		for _, e := range c.Env {
			lintLegacy(c, e.NoDelim, r.lint)
			lintSecret("ENV", e.Key, c, r.lint)
			step.CreatedBy += " " + e.String()
			r.s.env = r.s.env.set(e.Key, e.Value)
			config.Env = setImageEnv(config.Env, e.Key, e.Value)
		}
	case *instructions.LabelCommand:
		step.CreatedBy = "LABEL"
		if config.Labels == nil {
			config.Labels = map[string]string{}
		}
		for _, l := range c.Labels {
			lintLegacy(c, l.NoDelim, r.lint)
			config.Labels[l.Key] = l.Value
			step.CreatedBy += " " + l.String()
		}
	case *instructions.CmdCommand:
		lintOnce(c, &r.cmdAt, r.lint)
		args := r.shellArgs(c, c.ShellDependantCmdLine)
		config.Cmd = args
		config.ArgsEscaped = true //nolint:staticcheck // BuildKit sets it on CMD, and images are compared
		step.CreatedBy = fmt.Sprintf("CMD %q", args)
	case *instructions.EntrypointCommand:
		lintOnce(c, &r.entrypointAt, r.lint)
		args := r.shellArgs(c, c.ShellDependantCmdLine)
		config.Entrypoint = args
		if r.cmdAt == nil {
			config.Cmd = nil // it was made for another entrypoint
		}
		step.CreatedBy = fmt.Sprintf("ENTRYPOINT %q", args)
	case *instructions.HealthCheckCommand:
		lintOnce(c, &r.healthAt, r.lint)
		h := *c.Health
		h.Test = slices.Clone(h.Test)
		config.Healthcheck = &h
		step.CreatedBy = fmt.Sprintf("HEALTHCHECK %+v", h)
	case *instructions.ExposeCommand:
		return r.expose(c, step)
	case *instructions.UserCommand:
		r.s.user = c.User
		config.User = c.User
		step.CreatedBy = "USER " + c.User
	case *instructions.VolumeCommand:
		if config.Volumes == nil {
			config.Volumes = map[string]struct{}{}
		}
		for _, v := range c.Volumes {
			if v == "" {
				return fmt.Errorf("VOLUME specified can not be an empty string")
			}
			config.Volumes[v] = struct{}{}
		}
		step.CreatedBy = fmt.Sprintf("VOLUME %v", c.Volumes)
	case *instructions.StopSignalCommand:
		if _, err := signal.ParseSignal(c.Signal); err != nil {
			return err
		}
		config.StopSignal = c.Signal
		step.CreatedBy = "STOPSIGNAL " + c.Signal
	case *instructions.ShellCommand:
		config.Shell = c.Shell
		step.CreatedBy = fmt.Sprintf("SHELL %v", c.Shell)
	default:
		return internal("instruction %s is not known", c.Name())
	}
	return nil
}

// shellArgs is the command line of CMD or ENTRYPOINT.
func (r *stageRun) shellArgs(c instructions.Command, line instructions.ShellDependantCmdLine) []string {
	if !line.PrependShell {
		return line.CmdLine
	}
	if len(r.s.image.Config.Shell) == 0 {
		r.lint.Run(&linter.RuleJSONArgsRecommended, c.Location(), linter.RuleJSONArgsRecommended.Format(c.Name()))
	}
	return r.withShell(line.CmdLine)
}

// withShell hands the words to the shell as one.
func (r *stageRun) withShell(args []string) []string {
	sh := slices.Clone(r.s.image.Config.Shell)
	if len(sh) == 0 {
		sh = []string{"/bin/sh", "-c"}
	}
	return append(sh, strings.Join(args, " "))
}

// setDir changes the working directory. The configuration keeps an absolute
// path as it is written.
func (r *stageRun) setDir(dir string) {
	config := &r.s.image.Config
	config.WorkingDir = joinDir(config.WorkingDir, dir)
	r.s.dir = config.WorkingDir
}

// joinDir is a path seen from a directory: as it is if absolute.
func joinDir(dir, p string) string {
	if dir == "" {
		dir = "/"
	}
	if !path.IsAbs(dir) {
		dir = path.Join("/", dir)
	}
	if p == "" {
		p = dir
	}
	if !path.IsAbs(p) {
		p = path.Join(dir, p)
	}
	return p
}

func (r *stageRun) doWorkdir(c *instructions.WorkdirCommand, step *Step) error {
	if !r.s.workdirSet && !path.IsAbs(c.Path) {
		r.lint.Run(&linter.RuleWorkdirRelativePath, c.Location(), linter.RuleWorkdirRelativePath.Format(c.Path))
	}
	r.s.workdirSet = true
	r.setDir(c.Path)
	step.CreatedBy = "WORKDIR " + r.s.dir
	step.Dir = path.Clean(r.s.dir)
	if r.s.dir != "/" {
		step.Empty = false
		step.Workdir = &Workdir{Path: path.Clean(r.s.dir), User: r.s.image.Config.User, Epoch: r.g.f.epoch}
		return r.lookedUp("user "+step.Workdir.User, step.Workdir.User)
	}
	return nil
}

// doArg declares ARGs: a build arg wins over a default, which wins over the
// global scope.
func (r *stageRun) doArg(c *instructions.ArgCommand, step *Step) error {
	f, s := r.g.f, r.s
	step.CreatedBy = "ARG"
	for _, a := range c.Args {
		lintSecret("ARG", a.Key, c, r.lint)
		given, isGiven := f.args[a.Key]
		global, isGlobal := f.globals.Get(a.Key)
		switch {
		case isGiven:
			a.Value = &given
		case a.Value != nil:
			v, unmatched, err := r.g.shlex.ProcessWord(*a.Value, s.env)
			r.lintVars(c, unmatched, r.lint)
			if err != nil {
				return err
			}
			a.Value = &v
		case isGlobal:
			a.Value = &global
		}
		step.CreatedBy += " " + a.Key
		if a.Value != nil {
			if !isScanArg(a.Key) {
				s.env = s.env.set(a.Key, *a.Value)
			}
			step.CreatedBy += "=" + *a.Value
		}
		s.args = append(s.args, a)
	}
	return nil
}

// isScanArg tells the ARGs that steer BuildKit's scanner and reach no environment.
func isScanArg(name string) bool {
	return name == "BUILDKIT_SBOM_SCAN_CONTEXT" || name == "BUILDKIT_SBOM_SCAN_STAGE"
}

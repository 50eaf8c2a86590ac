package skaffold

import (
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"kaniko-build/cmd/kaniko-build/internal/importer"
	"kaniko-build/cmd/kaniko-build/internal/secretflag"
	"kaniko-build/schema/diag"
)

// Fields of kaniko's artifacts that make no difference to an image, with what takes
// their place.
var (
	ofLog = []string{"verbosity", "logFormat", "logTimestamp"}
	// what kaniko needs as it builds in its own root, and works there
	ofRoot = []string{"cleanup", "force", "useNewRun", "whitelistVarRun", "ignoreVarRun", "skipUnusedStages", "forceBuildMetadata", "compressedCaching"}
	// the pod that kaniko runs in, and how the context gets there
	ofPod = []string{"image", "initImage", "imagePullSecret", "copyMaxRetries", "copyTimeout", "buildContext", "buildContextCompressionLevel", "skipPushPermission", "skipPushPermissionCheck"}
	// files that kaniko writes in its pod, which nobody gets
	written = map[string]string{
		"tarPath": "outputs: [{type: docker, dest: FILE}]", "ociLayoutPath": "outputs: [{type: oci, dest: DIR}]",
		"digestFile": "run: {digestDir: DIR}", "imageNameWithDigestFile": "run: {metadataFile: FILE}", "imageNameTagWithDigestFile": "run: {metadataFile: FILE}",
	}
	// times to try again, as flags
	retries = map[string]string{"pushRetry": "--push-retry", "imageFSExtractRetry": "--image-fs-extract-retry", "imageDownloadRetry": "--image-download-retry"}
)

// kaniko reads the artifact's fields. host is the registry of its image, "" where the
// image names none.
func (p *project) kaniko(t *importer.Target, kaniko importer.YAML, host string) {
	env := map[string]string{} // of the pod: build arguments without a value have theirs from it
	for _, e := range kaniko.Get("env").Items() {
		if v := e.Get("value"); v.IsText() {
			env[e.Get("name").Text()] = v.Text()
		}
	}
	for _, pair := range slices.Concat(kaniko.Pairs(), p.flags(t, kaniko.Get("flags"))) {
		p.field(t, pair, host, env)
	}
	p.level(t, kaniko.Pos())
}

// level leaves out a compression level that only zstd has.
func (p *project) level(t *importer.Target, at diag.Pos) {
	zstd := slices.ContainsFunc(t.Executor, func(e importer.Entry) bool { return e.Key == "compression" && e.Value == "zstd" })
	t.Executor = slices.DeleteFunc(t.Executor, func(e importer.Entry) bool {
		n, err := strconv.Atoi(e.Value)
		high := e.Key == "compressionLevel" && err == nil && n > 9 && !zstd
		if high {
			p.draft.Drop(at, "1 to 9 are there", "image %q: kaniko.compressionLevel %d of gzip", t.Name, n)
		}
		return high
	})
}

// field reads one field.
func (p *project) field(t *importer.Target, pair importer.Pair, host string, env map[string]string) {
	v := pair.Value
	drop := func(hint, what string) {
		p.draft.Drop(pair.Pos, hint, "image %q: kaniko.%s%s", t.Name, pair.Key, what)
	}
	tell := func(hint, what string) {
		p.draft.Tell(pair.Pos, hint, "image %q: kaniko.%s%s", t.Name, pair.Key, what)
	}
	if p.shared(t, pair, env) {
		return
	}
	switch pair.Key {
	case "contextSubPath", "flags": // a part of the context; read as fields
	case "cache":
		p.cache(t, pair, host)
	case "reproducible":
		if v.True() {
			t.Executor = append(t.Executor, importer.Entry{Key: "reproducible", Text: importer.Plain("true")})
		}
	case "snapshotMode":
		if !slices.Contains([]string{"full", "redo", "time"}, v.Text()) {
			drop("full, redo and time are there", " "+v.Describe())
			return
		}
		t.Executor = append(t.Executor, importer.Entry{Key: "snapshotMode", Text: importer.Plain(v.Text())})
	case "singleSnapshot":
		if v.True() {
			t.ExtraArgs = append(t.ExtraArgs, "--single-snapshot")
		}
	case "ignorePaths":
		if len(p.ours) > 1 {
			tell("", " holds for all images of a run")
		}
	case "label":
		for _, l := range v.Pairs() {
			t.Labels = append(t.Labels, importer.Entry{Key: l.Key, Text: p.template(l.Value)})
		}
	case "annotation":
		for _, l := range v.Pairs() {
			t.Annotated = append(t.Annotated, importer.Entry{Key: l.Key, Text: p.template(l.Value)})
		}
	case "secret":
		p.secretFlag(t, pair)
	case "imageFormat":
		if !slices.Contains([]string{"oci", "docker"}, v.Text()) {
			drop("oci and docker are there", " "+v.Describe())
			return
		}
		t.Executor = append(t.Executor, importer.Entry{Key: "imageFormat", Text: importer.Plain(v.Text())})
	case "compressionLevel":
		if n, err := strconv.Atoi(v.Text()); err != nil || n > 22 {
			drop("", " "+v.Describe()+" is no level")
		} else if n > 0 { // others mean that of the library
			t.Executor = append(t.Executor, importer.Entry{Key: "compressionLevel", Text: importer.Plain(strconv.Itoa(n))})
		}
	case "noPush":
		if v.True() {
			t.Outputs = append(t.Outputs, importer.Output{Type: "none"})
		}
	case "destination":
		for _, name := range v.Items() {
			tag := p.template(name)
			if _, _, tagged := importer.Cut(tag.Value); !tagged {
				tag.Value += ":latest" // what has no tag would be one of the image's own name
			}
			t.Tags = append(t.Tags, importer.Tag{Text: tag})
		}
	case "insecure", "skipTLS", "skipTLSVerify":
		switch {
		case !v.True():
		case host == "":
			drop("registries: {HOST: {insecure: true}}", ", and the image names no registry")
		default:
			p.insecure(host)
			tell("", " is that of "+host+", for pushing and pulling")
		}
	case "insecurePull", "skipTLSVerifyPull":
		if v.True() {
			drop("registries: {HOST: {insecure: true}}", ", which names no registry")
		}
	case "insecureRegistry", "skipTLSVerifyRegistry":
		for _, host := range v.Texts() {
			p.insecure(host)
		}
	case "registryMirror":
		for _, mirror := range v.Texts() {
			p.mirror("docker.io", mirror)
		}
	case "registryMap":
		for m := range strings.SplitSeq(v.Text(), ";") {
			if from, to, ok := strings.Cut(m, "="); ok {
				p.mirror(from, to)
			} else {
				drop("HOST=OTHER", " "+v.Describe())
			}
		}
	case "registryCertificate":
		for _, c := range v.Pairs() {
			p.draft.Drop(c.Pos, "registries: {"+c.Key+": {ca: FILE}} with a file of this machine", "image %q: kaniko.registryCertificate %s, a file of the pod", t.Name, c.Value.Text())
		}
	case "pushRetry", "imageFSExtractRetry", "imageDownloadRetry":
		if n, err := strconv.Atoi(v.Text()); err != nil || n < 0 {
			drop("", " "+v.Describe()+" is no number")
		} else if n > 0 {
			t.ExtraArgs = append(t.ExtraArgs, retries[pair.Key]+"="+strconv.Itoa(n))
		}
	case "compression":
		if !slices.Contains([]string{"gzip", "zstd"}, v.Text()) {
			drop("gzip and zstd are there", " "+v.Describe())
			return
		}
		t.Executor = append(t.Executor, importer.Entry{Key: "compression", Text: importer.Plain(v.Text())})
	case "env":
		p.env(t, v)
	case "volumeMounts":
		for _, m := range v.Items() {
			p.draft.Drop(m.Pos(), "RUN --mount=type=secret or type=cache brings it to a step", "image %q: kaniko.volumeMounts %s, which steps would see", t.Name, strings.Join(append(m.Get("mountPath").Texts(), m.Get("mountpath").Texts()...), ""))
		}
	default:
		switch {
		case slices.Contains(ofLog, pair.Key):
			tell("--progress says how much is told", " changes nothing in the image")
		case slices.Contains(ofRoot, pair.Key):
			tell("", " changes nothing here: each image has a root of its own")
		case slices.Contains(ofPod, pair.Key):
			tell("", " is about kaniko's pod")
		case written[pair.Key] != "":
			tell(written[pair.Key], " is a file in kaniko's pod")
		default:
			drop("", "")
		}
	}
}

// cache reads where results are kept.
func (p *project) cache(t *importer.Target, pair importer.Pair, host string) {
	v := pair.Value
	made := importer.Cache{Repo: p.template(v.Get("repo"))}
	if ttl := v.Get("ttl"); ttl.Is() {
		if _, err := time.ParseDuration(ttl.Text()); err != nil || strings.HasPrefix(ttl.Text(), "-") {
			p.draft.Drop(ttl.Pos(), "a time such as 24h", "image %q: cache.ttl %s", t.Name, ttl.Describe())
		} else {
			made.TTL = strings.TrimPrefix(ttl.Text(), "+")
		}
	}
	for _, kind := range []struct {
		key string
		to  *string
	}{{"cacheCopyLayers", &made.Copy}, {"cacheRunLayers", &made.Run}} {
		if is := v.Get(kind.key); is.Is() && !is.True() {
			*kind.to = "false"
		}
	}
	if h := v.Get("hostPath"); h.Is() {
		p.draft.Tell(h.Pos(), "", "image %q: base images are kept in the store, not in %s", t.Name, h.Text())
	}
	if v.Get("noPushCache").True() {
		made.Write = "never"
	}
	if made.Repo.Value == "" && host == "" {
		p.draft.Tell(pair.Pos, "cache: {repo: REGISTRY/NAME} keeps results outside this machine", "image %q: cache: its repository would follow from the image, which names no registry", t.Name)
		return
	}
	t.Cache = &made
}

// secretFlag is a secret by kaniko's words: id=ID[,src=FILE][,env=NAME].
func (p *project) secretFlag(t *importer.Target, pair importer.Pair) {
	said, err := secretflag.Parse(pair.Value.Text())
	if err != nil {
		p.draft.Drop(pair.Pos, "secrets: {ID: {file: FILE}}", "image %q: kaniko.secret %s", t.Name, pair.Value.Describe())
		return
	}
	made := importer.Secret{ID: said.ID, File: said.File, Env: said.Env}
	if made.Env == "" && made.File == "" && said.Type == "file" { // kaniko looks for a file by its id
		made.File = made.ID
	}
	p.grant(t, made)
}

// env says what becomes of the pod's environment.
func (p *project) env(t *importer.Target, list importer.YAML) {
	for _, e := range list.Items() {
		name := e.Get("name").Text()
		switch {
		case name == "KANIKO_REGISTRY_MIRROR" && e.Get("value").Is():
			p.field(t, importer.Pair{Key: "registryMirror", Pos: e.Pos(), Value: e.Get("value")}, "", nil)
		case e.Get("valueFrom").Is():
			p.draft.Tell(e.Pos(), "set "+name+" where the program runs", "image %q: kaniko.env %s comes from the cluster", t.Name, name)
		default:
			p.draft.Tell(e.Pos(), "", "image %q: kaniko.env %s is kaniko's own environment; steps do not see it", t.Name, name)
		}
	}
}

// hostOf is the registry that the name of an image begins with, or "".
func hostOf(image string) string {
	host, _, ok := strings.Cut(image, "/")
	if !ok || importer.HasReference(host) || host != "localhost" && !strings.ContainsAny(host, ".:") {
		return ""
	}
	return host
}

// Flags of kaniko's whose field has another name than theirs in camel case.
var fieldOf = map[string]string{
	"skip-tls-verify": "skipTLS", "skip-tls-verify-pull": "skipTLSVerifyPull", "skip-tls-verify-registry": "skipTLSVerifyRegistry",
	"ignore-path": "ignorePaths", "image-fs-extract-retry": "imageFSExtractRetry", "snapshotMode": "snapshotMode", "tarPath": "tarPath",
	"oci-layout-path": "ociLayoutPath", "build-arg": "buildArgs", "v": "verbosity", "f": "dockerfile", "d": "destination",
}

// pairFlags are those whose value is NAME=VALUE.
var pairFlags = []string{"annotation", "buildArgs", "label", "registryCertificate"}

// boolFlags have a value only behind "=".
var boolFlags = []string{
	"cache", "cache-copy-layers", "cache-run-layers", "cleanup", "compressed-caching", "force", "force-build-metadata", "ignore-var-run", "insecure", "insecure-pull",
	"log-timestamp", "no-push", "no-push-cache", "push-ignore-immutable-tag-errors", "reproducible", "single-snapshot", "skip-default-registry-fallback",
	"skip-push-permission-check", "skip-tls-verify", "skip-tls-verify-pull", "skip-unused-stages", "use-new-run", "whitelist-var-run",
}

// flags is the list of kaniko's own flags that older versions have, as fields.
func (p *project) flags(t *importer.Target, list importer.YAML) []importer.Pair {
	var out []importer.Pair
	cache, cacheAt := importer.YAML{}, diag.Pos{}
	items := list.Items()
	for i := 0; i < len(items); i++ {
		item := items[i]
		name, value, has := strings.Cut(strings.TrimLeft(item.Text(), "-"), "=")
		if !strings.HasPrefix(item.Text(), "-") || name == "" {
			p.draft.Drop(item.Pos(), "", "image %q: kaniko.flags %s is no flag", t.Name, item.Describe())
			continue
		}
		switch {
		case has:
		case slices.Contains(boolFlags, name):
			value = "true"
		case i+1 < len(items):
			i++
			value = items[i].Text()
		}
		key, known := fieldOf[name]
		if !known {
			key = camel(name)
		}
		text := item.Part(value, true)
		switch key {
		case "cache", "cacheRepo", "cacheDir", "cacheTtl", "cacheCopyLayers", "cacheRunLayers", "noPushCache":
			if !cache.Is() {
				cacheAt = item.Pos()
				cache = item.Map()
			}
			part := map[string]string{"cache": "on", "cacheRepo": "repo", "cacheDir": "hostPath", "cacheTtl": "ttl"}[key]
			if part == "" {
				part = key
			}
			cache = cache.With([]string{part}, "add", text)
			continue
		case "customPlatform":
			t.Platforms = importer.Plains([]string{value})
			continue
		}
		if slices.Contains(pairFlags, key) {
			k, v, has := strings.Cut(value, "=")
			if k == "" {
				p.draft.Drop(item.Pos(), "", "image %q: kaniko.flags %s has no name", t.Name, item.Describe())
				continue
			}
			text = item.Map().With([]string{k}, "add", item.Part(v, has))
		}
		out = append(out, importer.Pair{Key: key, Pos: item.Pos(), Value: text})
	}
	if cache.Get("on").True() {
		out = append(out, importer.Pair{Key: "cache", Pos: cacheAt, Value: cache})
	}
	return out
}

// camel is a-name as aName.
func camel(name string) string {
	var b strings.Builder
	up := false
	for _, r := range name {
		if r == '-' {
			up = true
			continue
		}
		if up {
			r = unicode.ToUpper(r)
		}
		up = false
		b.WriteRune(r)
	}
	return b.String()
}

// ignore finds what all images ignore: apply builds all of a run with the same.
func (p *project) ignore() {
	add := func(list []importer.YAML) {
		for _, a := range list {
			paths := a.At("kaniko", "ignorePaths").Texts()
			flags := a.At("kaniko", "flags").Texts()
			for i, flag := range flags {
				if value, ok := strings.CutPrefix(flag, "--ignore-path="); ok {
					paths = append(paths, value)
				} else if flag == "--ignore-path" && i+1 < len(flags) {
					paths = append(paths, flags[i+1])
				}
			}
			for _, path := range paths {
				if !slices.Contains(p.ignored, path) {
					p.ignored = append(p.ignored, path)
				}
			}
		}
	}
	for _, c := range p.configs {
		add(c.doc.At("build", "artifacts").Items())
		for _, profile := range c.doc.Get("profiles").Items() {
			add(p.artifacts(c, profile))
		}
	}
}

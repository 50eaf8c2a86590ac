package skaffold

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"kaniko-build/cmd/kaniko-build/internal/importer"
)

// Quantities of Kubernetes as the manifest has them.
var (
	cpuQuantity    = regexp.MustCompile(`^([0-9]+(\.[0-9]+)?|[0-9]+m)$`)
	memoryQuantity = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?([KMGT]i?)?$`)
)

// cluster is where pods build, and what all nodes have there; nil if nothing says that
// they do.
func (p *project) cluster(build importer.YAML) (*importer.Cluster, importer.Target) {
	var each importer.Target
	at := slices.IndexFunc(build.Pairs(), func(pair importer.Pair) bool { return pair.Key == "cluster" })
	if at < 0 {
		return nil, each
	}
	out := &importer.Cluster{}
	for _, pair := range build.Pairs()[at].Value.Pairs() {
		switch pair.Key {
		case "namespace":
			out.Namespace = p.template(pair.Value)
		case "serviceAccount", "serviceAccountName":
			out.ServiceAccount = p.template(pair.Value)
		case "nodeSelector":
			for _, label := range pair.Value.Pairs() {
				out.Labels = append(out.Labels, importer.Entry{Key: label.Key, Text: p.template(label.Value)})
			}
		case "tolerations":
			for _, item := range pair.Value.Items() {
				out.Tolerations = append(out.Tolerations, p.toleration(item))
			}
		case "resources":
			p.resources(&each, pair.Value)
		case "timeout":
			if d, err := time.ParseDuration(pair.Value.Text()); err != nil || d <= 0 {
				p.draft.Drop(pair.Pos, "a time such as 30m", "cluster.timeout %s", pair.Value.Describe())
			} else {
				each.Timeout = pair.Value.Text()
			}
		case "dockerConfig", "pullSecretName", "pullSecret", "pullSecretPath", "pullSecretMountPath":
			p.draft.Tell(pair.Pos, "kaniko-build login, or the docker config of this machine", "cluster.%s: credentials are those of who runs the program", pair.Key)
		case "HTTP_PROXY", "HTTPS_PROXY":
			p.draft.Tell(pair.Pos, "set it where the program runs; args: {"+pair.Key+": ...} for RUN", "cluster.%s: proxies are those of who runs the program", pair.Key)
		case "concurrency":
			p.draft.Tell(pair.Pos, "run: {jobs: N}", "cluster.concurrency: how much runs at once follows from the machine")
		case "randomPullSecret", "randomDockerConfigSecret":
			p.draft.Tell(pair.Pos, "", "cluster.%s has no counterpart", pair.Key)
		case "volumes":
			p.draft.Drop(pair.Pos, "RUN --mount=type=secret or type=cache brings files to a step", "cluster.volumes")
		case "runAsUser":
			p.draft.Drop(pair.Pos, "a pod needs no user of its own: USER says who runs a step", "cluster.runAsUser")
		default:
			p.draft.Drop(pair.Pos, "", "cluster.%s", pair.Key)
		}
	}
	return out, each
}

// toleration is one of a pod. Kubernetes takes its keys in any case.
func (p *project) toleration(item importer.YAML) []importer.Entry {
	var out []importer.Entry
	for _, pair := range item.Pairs() {
		key := strings.ToLower(pair.Key)
		switch {
		case !pair.Value.IsText():
		case key == "tolerationseconds":
			p.draft.Drop(pair.Pos, "", "cluster.tolerations: pods stay as long as they build, and not %s seconds", pair.Value.Text())
		case slices.Contains([]string{"key", "operator", "value", "effect"}, key):
			if pair.Value.Text() != "" {
				out = append(out, importer.Entry{Key: key, Text: p.template(pair.Value)})
			}
		default:
			p.draft.Drop(pair.Pos, "", "cluster.tolerations: %s", pair.Key)
		}
	}
	return out
}

// resources are those of a node: its limits, else what it requests.
func (p *project) resources(t *importer.Target, v importer.YAML) {
	var requested importer.Target
	for _, part := range []struct {
		key string
		to  *importer.Target
	}{{"requests", &requested}, {"limits", t}} {
		for _, pair := range v.Get(part.key).Pairs() {
			text := pair.Value.Text()
			switch {
			case pair.Key == "cpu" && cpuQuantity.MatchString(text):
				part.to.CPU = text
			case pair.Key == "memory" && memoryQuantity.MatchString(text):
				part.to.Memory = text
			default:
				p.draft.Drop(pair.Pos, "resources: has cpu and memory", "cluster.resources.%s: %s %s", part.key, pair.Key, pair.Value.Describe())
			}
		}
	}
	for _, pair := range v.Pairs() {
		if pair.Key != "requests" && pair.Key != "limits" {
			p.draft.Drop(pair.Pos, "", "cluster.resources.%s", pair.Key)
		}
	}
	for _, f := range []struct {
		name      string
		limit     *string
		requested string
	}{{"cpu", &t.CPU, requested.CPU}, {"memory", &t.Memory, requested.Memory}} {
		switch {
		case *f.limit == "":
			*f.limit = f.requested
		case f.requested != "" && f.requested != *f.limit:
			p.draft.Tell(v.Pos(), "", "cluster.resources: a node requests its limit of %s, %s", f.name, *f.limit)
		}
	}
}

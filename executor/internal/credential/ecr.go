package credential

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
)

// privateECR is the host of an account's registry: account, FIPS and region.
// It is compiled when a registry is asked for, not at every start.
var privateECR = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(\d{12})\.dkr[.-]ecr(-fips)?\.([a-z0-9-]+)\.(amazonaws\.com(\.cn)?|on\.aws|on\.amazonwebservices\.com\.cn|sc2s\.sgov\.gov|c2s\.ic\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)$`)
})

// publicECR is Amazon's registry that anybody may read.
const publicECR = "public.ecr.aws"

// ecr asks AWS for a token with the default chain of credentials.
func (o Options) ecr(ctx context.Context, host string) (*login, error) {
	m := privateECR().FindStringSubmatch(host)
	if m == nil && host != publicECR {
		return nil, nil
	}
	region := "us-east-1" // the only one of the public registry's API
	if m != nil {
		region = m[3]
	}
	var client config.HTTPClient = awshttp.NewBuildableClient() // which knows AWS_CA_BUNDLE
	if o.Client != nil {
		client = o.Client
	}
	cfg, err := config.LoadDefaultConfig(ctx, config.WithRegion(region), config.WithHTTPClient(client))
	if err != nil {
		return nil, fmt.Errorf("load the configuration of AWS: %w", err)
	}
	identity, err := cfg.Credentials.Retrieve(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, nil // no identity
	}
	api := ecrAPI{"https://api.ecr." + region + "." + dns(region), "ecr", "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"}
	switch {
	case m == nil:
		api = ecrAPI{"https://api.ecr-public.us-east-1.amazonaws.com", "ecr-public", "SpencerFrontendService.GetAuthorizationToken"}
	case m[2] != "":
		api.endpoint = "https://ecr-fips." + region + ".amazonaws.com"
	}
	if own := o.Getenv("AWS_ENDPOINT_URL_ECR"); own != "" && m != nil {
		api.endpoint = own // as AWS's own tools have it
	}
	l, err := o.ecrToken(ctx, cfg, region, identity, api)
	if err != nil {
		return nil, fmt.Errorf("ask ECR in %s for a token: %w", region, err)
	}
	return l, nil
}

// dns is the domain of a region's services.
func dns(region string) string {
	if strings.HasPrefix(region, "cn-") {
		return "amazonaws.com.cn"
	}
	return "amazonaws.com"
}

// ecrAPI is one of the two services that give tokens.
type ecrAPI struct {
	endpoint, service, action string
}

// ecrToken calls GetAuthorizationToken. Amazon's clients of the two services
// cost more at the start of every command than all else that is AWS's.
func (o Options) ecrToken(ctx context.Context, cfg aws.Config, region string, identity aws.Credentials, api ecrAPI) (*login, error) {
	const body = "{}"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, api.endpoint+"/", strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	req.Header.Set("X-Amz-Target", api.action)
	sum := sha256.Sum256([]byte(body))
	if err := v4.NewSigner().SignHTTP(ctx, identity, req, hex.EncodeToString(sum[:]), api.service, region, time.Now()); err != nil {
		return nil, err
	}
	resp, err := cfg.HTTPClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		var said struct {
			Type    string `json:"__type"`
			Message string `json:"message"`
		}
		json.Unmarshal(b, &said) // an answer without it is shown as its status
		return nil, fmt.Errorf("it answers %d %s %s: %s", resp.StatusCode, http.StatusText(resp.StatusCode), said.Type, said.Message)
	}
	var answer struct {
		Data json.RawMessage `json:"authorizationData"`
	}
	type data struct {
		Token string  `json:"authorizationToken"`
		Until float64 `json:"expiresAt"` // seconds since 1970
	}
	var one data
	if err := json.Unmarshal(b, &answer); err == nil {
		var list []data // of the private service
		if json.Unmarshal(answer.Data, &list) == nil && len(list) > 0 {
			one = list[0]
		} else if err := json.Unmarshal(answer.Data, &one); err != nil {
			one = data{}
		}
	}
	t, err := base64.StdEncoding.DecodeString(one.Token)
	user, password, ok := strings.Cut(string(t), ":")
	if err != nil || !ok || password == "" {
		return nil, errors.New("it gave a token that is none")
	}
	l := named(user, password)
	l.until = early(time.Unix(int64(one.Until), 0))
	return l, nil
}

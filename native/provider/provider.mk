# The OpenSSL 3 provider, build/hsmgate.so. Needs libssl-dev (OpenSSL 3.0 or later): the provider links libcrypto of the machine, which
# is the one that the TLS servers use.
#
#   make provider         build/hsmgate.so
#   make provider-tests   the programs of its tests: `codec` holds the parsers alone, `driver` uses the provider as applications do;
#                         each as it is, under AddressSanitizer with UndefinedBehaviorSanitizer, and under ThreadSanitizer

PROVIDER := $(ROOT)/native/provider
PROVIDER_TESTS := $(TESTS)/provider
PROVIDER_SOURCES := $(wildcard $(PROVIDER)/*.c)
PROVIDER_WARNINGS := -Wall -Wextra -Werror -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla
PROVIDER_COMMON := -std=c11 -D_GNU_SOURCE -DOPENSSL_API_COMPAT=30000 -DOPENSSL_NO_DEPRECATED -g1 -fPIC -pthread -fvisibility=hidden \
	$(PROVIDER_WARNINGS)
# nodelete: Apache unloads its modules and loads them again. Only what the map names is visible.
PROVIDER_LINK := $(LINK) -Wl,-z,nodelete -Wl,--version-script=$(PROVIDER)/provider.map
PROVIDER_TEST_FLAGS := -std=c11 -D_GNU_SOURCE -g1 -pthread -Wall -Wextra -Werror -I$(PROVIDER)
CODEC_SOURCES := $(PROVIDER_TESTS)/codec.c $(PROVIDER)/frame.c $(PROVIDER)/reference.c $(PROVIDER)/text.c
DRIVER_SOURCES := $(filter-out $(PROVIDER_TESTS)/codec.c,$(wildcard $(PROVIDER_TESTS)/*.c))

.PHONY: provider provider-tests
provider: $(BUILD)/hsmgate.so
provider-tests: $(foreach kind,plain asan tsan,$(addprefix $(BUILD)/provider-$(kind)/,hsmgate.so codec driver))

$(BUILD)/hsmgate.so: $(BUILD)/provider-plain/hsmgate.so
	cp $< $@.new
	mv -f $@.new $@

# $(call provider-kind,name,flags)
define provider-kind
$(BUILD)/provider-$(1)/hsmgate.so: $(PROVIDER_SOURCES:$(PROVIDER)/%.c=$(BUILD)/provider-$(1)/%.o) $(PROVIDER)/provider.map
	$(CC) -shared $(2) $(PROVIDER_LINK) -o $$@.new $$(filter %.o,$$^) -lcrypto
	mv -f $$@.new $$@
$(BUILD)/provider-$(1)/%.o: $(PROVIDER)/%.c
	@mkdir -p $$(@D)
	$(CC) $(PROVIDER_COMMON) $(2) -MMD -MP -c -o $$@ $$<
$(BUILD)/provider-$(1)/codec: $(CODEC_SOURCES) $(wildcard $(PROVIDER)/*.h)
	@mkdir -p $$(@D)
	$(CC) $(PROVIDER_TEST_FLAGS) $(2) -o $$@ $$(filter %.c,$$^)
$(BUILD)/provider-$(1)/driver: $(DRIVER_SOURCES) $(PROVIDER_TESTS)/driver.h
	@mkdir -p $$(@D)
	$(CC) $(PROVIDER_TEST_FLAGS) $(2) -o $$@ $$(filter %.c,$$^) -lcrypto
endef
$(eval $(call provider-kind,plain,-O2 $(HARDENING)))
$(eval $(call provider-kind,asan,$(ASAN)))
$(eval $(call provider-kind,tsan,$(TSAN)))

-include $(wildcard $(BUILD)/provider-*/*.d)

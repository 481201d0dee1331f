"""test_conversations.py [TQ] [--conversations N] [--seed N]: random conversations with tools, tool calls, reasoning and
parts, through templates of the shapes that the public families have, against jinja2 as transformers sets it up.  The
templates are written here: what they share with the families' own is the form of the prompts and the constructs used.
TQ defaults to build/tq; text_oracle is looked for in its build tree."""
import argparse
import json
import os
import pathlib
import random
import struct
import sys

import jinja2

from tally import check, finish
from test_text import jinja_environment
from text_strings import ask, is_assigned, random_text

ROOT = pathlib.Path(__file__).resolve().parents[2]

PARTS = """
{%- macro text_of(content, trim=false) -%}
    {%- if content is string -%}{{ content | trim if trim else content }}
    {%- elif content is iterable and content is not mapping -%}
        {%- for part in content -%}
            {%- if part is mapping and 'text' in part -%}{{ part.text }}
            {%- elif part.type in ['image', 'image_url'] -%}<|image|>
            {%- else -%}{{ raise_exception('Unexpected part: ' ~ part.type) }}
            {%- endif -%}
        {%- endfor -%}
    {%- elif content is none or content is undefined -%}{{ '' }}
    {%- else -%}{{ raise_exception('Unexpected content type.') }}
    {%- endif -%}
{%- endmacro -%}
"""

TEMPLATES = {
    # system text and tools in one turn, calls as JSON in tags, answers gathered in a user's turn
    "qwen2.5": """
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}{{- messages[0]['content'] }}{%- else %}{{- 'You are helpful.' }}{%- endif %}
    {{- "\\n\\n# Tools\\n\\nSignatures within <tools></tools>:\\n<tools>" }}
    {%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
    {{- "\\n</tools>\\n\\n{\\"name\\": <name>, \\"arguments\\": <json>}<|im_end|>\\n" }}
{%- elif messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or
           (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}{{- '\\n' + message.content }}{%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}{%- set tool_call = tool_call.function %}{%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}{{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' }}{{- message.content }}{{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
""",
    # parts, reasoning kept only behind the last question, calls as XML with one tag a parameter
    "qwen3.5": PARTS + """
{%- if not messages %}{{ raise_exception('No messages provided.') }}{%- endif %}
{%- if tools and tools is iterable and tools is not mapping %}
    {{- '<|im_start|>system\\n# Tools\\n\\n<tools>' }}
    {%- for tool in tools %}{{- '\\n' ~ (tool | tojson) }}{%- endfor %}
    {{- '\\n</tools>' }}
    {%- if messages[0].role == 'system' %}
        {%- set content = text_of(messages[0].content)|trim %}
        {%- if content %}{{- '\\n\\n' + content }}{%- endif %}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(searching=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" %}
        {%- set content = text_of(message.content)|trim %}
        {%- if not(content.startswith('<tool_response>') and content.endswith('</tool_response>')) %}
            {%- set ns.searching = false %}
            {%- set ns.last = index %}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if ns.searching %}{{- raise_exception('No user query found in messages.') }}{%- endif %}
{%- for message in messages %}
    {%- set content = text_of(message.content)|trim %}
    {%- if message.role == "system" %}
        {%- if not loop.first %}{{- raise_exception('System message must be at the beginning.') }}{%- endif %}
    {%- elif message.role == "user" %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- set reasoning_content = reasoning_content|trim %}
        {%- if loop.index0 > ns.last %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content + '\\n</think>\\n\\n' + content }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls and message.tool_calls is iterable and message.tool_calls is not mapping %}
            {%- for tool_call in message.tool_calls %}
                {%- if tool_call.function is defined %}{%- set tool_call = tool_call.function %}{%- endif %}
                {%- if loop.first and not content|trim %}{{- '<tool_call>\\n<function=' + tool_call.name + '>\\n' }}
                {%- else %}{{- '\\n<tool_call>\\n<function=' + tool_call.name + '>\\n' }}{%- endif %}
                {%- if tool_call.arguments is defined %}
                    {%- for name, value in tool_call.arguments|items %}
                        {{- '<parameter=' + name + '>\\n' }}
                        {%- set value = value | tojson | safe if value is mapping or (value is sequence and value is not
                                        string) else value | string %}
                        {{- value }}{{- '\\n</parameter>\\n' }}
                    {%- endfor %}
                {%- endif %}
                {{- '</function>\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.previtem and loop.previtem.role != "tool" %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' }}{{- content }}{{- '\\n</tool_response>' }}
        {%- if not loop.last and loop.nextitem.role != "tool" or loop.last %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- else %}{{- raise_exception('Unexpected message role.') }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}
    {%- else %}{{- '<think>\\n' }}{%- endif %}
{%- endif %}
""",
    # dates, tools in the user's first turn, one call a turn
    "llama3.1": """{{- bos_token }}
{%- if not tools_in_user_message is defined %}{%- set tools_in_user_message = true %}{%- endif %}
{%- if not date_string is defined %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system_message = "" %}{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if builtin_tools is defined or tools is not none %}{{- "Environment: ipython\\n" }}{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}{{- system_message }}{{- "<|eot_id|>" }}
{%- if tools_in_user_message and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first_user_message = messages[0]['content']|trim %}{%- set messages = messages[1:] %}
    {%- else %}{{- raise_exception("Cannot put tools in the first user message when there's no first user message!") }}
{%- endif %}
    {{- '<|start_header_id|>user<|end_header_id|>\\n\\n' -}}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
    {{- first_user_message + "<|eot_id|>"}}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}{{- raise_exception("This model only supports one call") }}{%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}{{- '"parameters": ' }}{{- tool_call.arguments | tojson }}{{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}
        {%- else %}{{- message.content }}{%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}
""",
    # alternation, tools before the last question, ids of nine characters
    "mistral": """
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}{%- set loop_messages = messages[1:] %}
{%- else %}{%- set loop_messages = messages %}{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("Conversation roles must alternate") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function if tool.function is defined else tool %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}{{- '"' + key + '": "' + val + '"' }}
                    {%- else %}{{- '"' + key + '": ' + val|tojson }}{%- endif %}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}{{- "[INST] " + message["content"] + "[/INST]" }}{%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}{{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}
                {{- raise_exception("Tool call IDs should be alphanumeric strings with length 9!") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" + eos_token }}{%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}{{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool" or message["role"] == "tool_results" %}
        {%- if message.content is defined and message.content.content is defined %}
            {%- set content = message.content.content %}
        {%- else %}{%- set content = message.content %}{%- endif %}
        {{- '[TOOL_RESULTS] {"content": ' + content|string + ", " }}
        {{- '"call_id": "' + message.tool_call_id|default('none') + '"}[/TOOL_RESULTS]' }}
    {%- else %}{{- raise_exception("Only user and assistant roles are supported!") }}{%- endif %}
{%- endfor %}
""",
    # the system text becomes the first question's, parts one by one
    "gemma3": """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}{%- set first_user_prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}{%- set first_user_prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}{%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}{%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}{%- set role = "model" -%}
    {%- else -%}{%- set role = message['role'] -%}{%- endif -%}
    {{ '<start_of_turn>' + role + '\\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}{{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}{{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}
        {%- endfor -%}
    {%- else -%}{{ raise_exception("Invalid content type") }}{%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{'<start_of_turn>model\\n'}}{%- endif -%}
""",
    # macros that call themselves over JSON schemas, channels, the newest calls' name remembered
    "gpt-oss": """
{%- macro type_of(spec, required=[], nullable=false) -%}
    {%- if spec.type == "array" -%}
        {%- if spec['items'] is defined -%}{{- type_of(spec['items']) }}[]{%- else -%}any[]{%- endif -%}
    {%- elif spec.type is defined and spec.type is iterable and spec.type is not string and spec.type is not mapping -%}
        {{- spec.type | join(" | ") }}
    {%- elif spec.type == "string" -%}
        {%- if spec.enum -%}{{- '"' + spec.enum|join('" | "') + '"' -}}{%- else -%}string{%- endif -%}
    {%- elif spec.type in ("number", "integer") -%}number
    {%- elif spec.type == "boolean" -%}boolean
    {%- elif spec.type == "object" -%}
        {%- if spec.properties -%}
            {{- "{\\n" }}
            {%- for name, child in spec.properties.items() -%}
                {{- name -}}{%- if name not in (spec.required or []) -%}{{- "?" }}{%- endif -%}
                {{- ": " }}{{ type_of(child) }}{%- if not loop.last -%}{{-", " }}{%- endif -%}
            {%- endfor -%}{{- "}" }}
        {%- else -%}object{%- endif -%}
    {%- else -%}any{%- endif -%}
{%- endmacro -%}
{%- if messages[0].role == "developer" or messages[0].role == "system" %}
    {%- set developer_message = messages[0].content %}{%- set loop_messages = messages[1:] %}
{%- else %}{%- set developer_message = "" %}{%- set loop_messages = messages %}{%- endif %}
{{- "<|start|>system<|message|>Reasoning: " + reasoning_effort|default("medium") + "\\n\\n# Valid channels<|end|>" }}
{%- if developer_message or tools %}
    {{- "<|start|>developer<|message|>" }}
    {%- if developer_message %}{{- "# Instructions\\n\\n" }}{{- developer_message }}{{- "\\n\\n" }}{%- endif %}
    {%- if tools -%}
        {{- "# Tools\\n\\nnamespace functions {\\n\\n" }}
        {%- for tool in tools %}
            {%- set tool = tool.function if tool.function else tool %}
            {{- "// " ~ (tool.description or "") + "\\n" }}{{- "type "+ tool.name + " = " }}
            {%- if tool.parameters and tool.parameters.properties %}
                {{- "(_: {\\n" }}
                {%- for param_name, param_spec in tool.parameters.properties.items() %}
                    {%- if param_spec.description %}{{- "// " + param_spec.description + "\\n" }}{%- endif %}
                    {{- param_name }}{%- if param_name not in (tool.parameters.required or []) -%}{{- "?" }}{%- endif -%}
                    {{- ": " }}{{- type_of(param_spec, tool.parameters.required or []) }}
                    {%- if param_spec.default is defined -%}
                        {%- if param_spec.default is string %}{{- ", // default: \\"" + param_spec.default + "\\"" }}
                        {%- else %}{{- ", // default: " + param_spec.default|tojson }}{%- endif -%}
                    {%- endif -%}
                    {%- if not loop.last %}{{- ",\\n" }}{%- else %}{{- "\\n" }}{%- endif -%}
                {%- endfor %}
                {{- "}) => any;\\n\\n" }}
            {%- else -%}{{- "() => any;\\n\\n" }}{%- endif -%}
        {%- endfor %}
        {{- "} // namespace functions" }}
    {%- endif -%}
    {{- "<|end|>" }}
{%- endif %}
{%- set last_tool_call = namespace(name=none) %}
{%- for message in loop_messages -%}
    {%- if message.role == 'assistant' -%}
        {%- if "tool_calls" in message %}
            {%- set future_final_message = namespace(found=false) %}
            {%- for future_message in loop_messages[loop.index:] %}
                {%- if future_message.role == 'assistant' and "tool_calls" not in future_message %}
                    {%- set future_final_message.found = true %}
                {%- endif %}
            {%- endfor %}
            {%- set tool_call = message.tool_calls[0] %}
            {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
            {%- if message.reasoning_content and not future_final_message.found %}
                {{- "<|start|>assistant<|channel|>analysis<|message|>" + message.reasoning_content + "<|end|>" }}
            {%- endif %}
            {{- "<|start|>assistant to=" }}{{- "functions." + tool_call.name + "<|channel|>commentary " }}
            {{- (tool_call.content_type if tool_call.content_type is defined else "json") + "<|message|>" }}
            {{- tool_call.arguments|tojson }}{{- "<|call|>" }}
            {%- set last_tool_call.name = tool_call.name %}
        {%- elif loop.last and not add_generation_prompt %}
            {%- if "reasoning_content" in message %}
                {{- "<|start|>assistant<|channel|>analysis<|message|>" + message.reasoning_content + "<|end|>" }}
            {%- endif %}
            {{- "<|start|>assistant<|channel|>final<|message|>" + message.content + "<|return|>" }}
        {%- else %}
            {{- "<|start|>assistant<|channel|>final<|message|>" + message.content + "<|end|>" }}
            {%- set last_tool_call.name = none %}
        {%- endif %}
    {%- elif message.role == 'tool' -%}
        {%- if last_tool_call.name is none %}
            {{- raise_exception("Message has tool role, but there was no previous assistant message with a tool call!") }}
        {%- endif %}
        {{- "<|start|>functions." + last_tool_call.name }}{{- " to=assistant<|channel|>commentary<|message|>" }}
        {{- message.content|tojson + "<|end|>" }}
    {%- elif message.role == 'user' -%}{{- "<|start|>user<|message|>" + message.content + "<|end|>" }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|start|>assistant{%- endif -%}
""",
    # the whole template without minus signs: white space is trimmed by the block rules alone
    "phi3": """{% for message in messages %}
    {% if message['role'] == 'system' and 'tools' in message and message['tools'] is not none %}
{{ '<|' + message['role'] + '|>' + message['content'] + '<|tool|>' + message['tools'] + '<|/tool|>' + '<|end|>' }}
    {% elif message['role'] in ['user', 'assistant', 'system'] %}
{{ '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' }}
    {% endif %}
{% endfor %}
{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}
""",
    # a system turn made of pieces, reasoning split from content with generation blocks
    "smollm3": PARTS + """
{%- if enable_thinking is not defined %}{%- set enable_thinking = true %}{%- endif %}
{%- set mode = "/think" if enable_thinking else "/no_think" %}
{%- if messages[0].role == "system" %}
    {%- set system_message = text_of(messages[0].content) %}
    {%- if "/no_think" in system_message %}{%- set mode = "/no_think" %}
    {%- elif "/think" in system_message %}{%- set mode = "/think" %}{%- endif %}
    {%- set custom = system_message.replace("/no_think", "").replace("/think", "").rstrip() %}
{%- endif %}
{{- "<|im_start|>system\\n## Metadata\\n\\nReasoning Mode: " ~ mode ~ "\\n\\n" -}}
{%- if custom %}{{- custom + "\\n\\n" -}}{%- endif %}
{%- if tools %}
    {%- set ns = namespace(text="", n=0) %}
    {%- for tool in tools %}{%- set ns.text = ns.text ~ (tool | string) ~ "\\n" %}{%- set ns.n = ns.n + 1 %}{%- endfor %}
    {{- "### Tools (" ~ ns.n ~ ")\\n\\n" ~ ns.text ~ "\\n" -}}
{%- endif %}
{{- "<|im_end|>\\n" -}}
{%- for message in messages %}
    {%- set content = text_of(message.content) %}
    {%- if message.role == "user" %}{{ "<|im_start|>user\\n" + content + "<|im_end|>\\n" }}
    {%- elif message.role == "assistant" %}
        {% generation %}
        {%- if mode == "/think" %}{{ "<|im_start|>assistant\\n" + content.lstrip("\\n") + "<|im_end|>\\n" }}
        {%- else %}{{ "<|im_start|>assistant\\n<think>\\n\\n</think>\\n" + content.lstrip("\\n") + "<|im_end|>\\n" }}{%- endif %}
        {% endgeneration %}
    {%- elif message.role == "tool" %}{{ "<|im_start|>user\\n" + content + "<|im_end|>\\n" }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {%- if mode == "/think" %}{{ "<|im_start|>assistant\\n" }}
    {%- else %}{{ "<|im_start|>assistant\\n<think>\\n\\n</think>\\n" }}{%- endif %}
{%- endif %}
""",
    # tool names looked up, documents, counts, a date
    "granite": """
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] %}{%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set system_message = "Knowledge Cutoff Date: April 2024." %}
    {%- if tools and documents %}{%- set system_message = system_message + " Tools and documents." %}
    {%- elif tools %}{%- set system_message = system_message + " Tools: " + tools|map(attribute='function')|selectattr('name',
                     'defined')|map(attribute='name')|join(', ') %}
    {%- elif documents %}{%- set system_message = system_message + " Write according to the documents." %}{%- endif %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- '<|start_of_role|>system<|end_of_role|>' + system_message + '<|end_of_text|>\\n' }}
{%- if tools %}{{- '<|start_of_role|>tools<|end_of_role|>' }}{{- tools | tojson(indent=4) }}{{- '<|end_of_text|>\\n' }}{%- endif %}
{%- if documents %}
    {%- for document in documents %}
        {{- '<|start_of_role|>document {"document_id": "' + (document['doc_id'] | default(loop.index) | string) + '"}' }}
        {{- '<|end_of_role|>' + document['text'] + '<|end_of_text|>\\n' }}
    {%- endfor %}
{%- endif %}
{%- for message in loop_messages %}
    {%- if message['role'] == 'assistant' and message.tool_calls %}
        {{- '<|start_of_role|>assistant<|end_of_role|><|tool_call|>' + message.tool_calls|map(attribute='function')|list|tojson }}
    {%- else %}
        {{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>' + (message['content'] or '') }}
    {%- endif %}
    {{- '<|end_of_text|>\\n' }}
    {%- if loop.last and add_generation_prompt %}
        {{- '<|start_of_role|>assistant' }}
        {%- if controls %}{{- ' ' + controls | tojson }}{%- endif %}
        {{- '<|end_of_role|>' }}
    {%- endif %}
{%- endfor %}
""",
}

VALUES = ["Paris", "naïve ☃", 1, -7, 0.1, 1e100, True, None, [1, [2.0, "x'y\"z"]], {"a": {"b": []}}, "</tool_call>", ""]


def tools(rng):
    def schema(depth):
        kind = rng.choice(["string", "number", "integer", "boolean", "object", "array", ["integer", "null"]])
        spec = {"type": kind}
        if kind == "object" and depth < 3:
            spec["properties"] = {f"p{i}": schema(depth + 1) for i in range(rng.randrange(3))}
        if kind == "array" and rng.random() < 0.7:
            spec["items"] = schema(depth + 1)
        if kind == "string" and rng.random() < 0.3:
            spec["enum"] = ["a", "<|im_end|>"]
        if rng.random() < 0.4:
            spec["description"] = rng.choice(["Ask <it> & \"see\"", "日本", "a'b"])
        if rng.random() < 0.2:
            spec["default"] = rng.choice(VALUES)
        return spec
    made = []
    for name in rng.sample(["weather", "get_time", "search-web"], rng.randrange(1, 4)):
        function = {"name": name, "description": rng.choice(["Says it.", "Ask <it> & \"see\" é"]), "parameters": {
            "type": "object", "properties": {f"x{i}": schema(0) for i in range(rng.randrange(4))}, "required": ["x0"]}}
        made.append({"type": "function", "function": function})
    return made


def content(rng, text):
    """A text, or parts of which some are none."""
    kind = rng.random()
    if kind < 0.8:
        return text
    parts = [{"type": "text", "text": text}, {"type": "text", "text": " \n more "}]
    if kind > 0.95:
        parts.insert(0, {"type": "image"})
    return parts


def conversation(rng):
    def say():
        text = random_text(rng).replace("\x00", "")
        if rng.random() < 0.4 and is_assigned(text):
            return text
        return rng.choice(["Hello", "  Be brief.\n", "a\n\nb ", "<|im_end|><|eot_id|>[/INST]", "{\"t\": 21}", "/no_think é",
                           "<tool_response>x</tool_response>"])
    messages, with_tools = [], rng.random() < 0.5
    if rng.random() < 0.5:
        messages.append({"role": rng.choice(["system", "system", "developer"]), "content": content(rng, say())})
    for _ in range(rng.randrange(1, 5)):
        messages.append({"role": "user", "content": content(rng, say())})
        if with_tools and rng.random() < 0.6:
            calls = [{"type": "function", "id": f"call{i:05}" if rng.random() < 0.9 else "x", "function": {
                "name": "weather", "arguments": {f"x{k}": rng.choice(VALUES) for k in range(rng.randrange(3))}}}
                for i in range(rng.choice([1, 1, 2]))]
            message = {"role": "assistant", "content": rng.choice([None, "", "Let me see.\n"]), "tool_calls": calls}
            if rng.random() < 0.5:
                message["reasoning_content"] = "\nhm " + say()
            messages.append(message)
            for call in calls:
                messages.append({"role": "tool", "content": say(), "tool_call_id": call["id"], "name": "weather"})
        if rng.random() < 0.8:
            message = {"role": "assistant", "content": rng.choice(["", "<think>\nhm\n</think>\n\n"]) + say()}
            if rng.random() < 0.3:
                message["reasoning_content"] = say()
            messages.append(message)
    context = {"messages": messages, "tools": tools(rng) if with_tools else None, "documents": None,
               "add_generation_prompt": rng.random() < 0.5, "bos_token": "<s>", "eos_token": "</s>"}
    if rng.random() < 0.3:
        context["enable_thinking"] = rng.random() < 0.5
    if rng.random() < 0.2:
        context["documents"] = [{"title": "T", "text": say()}, {"doc_id": 7, "text": "é"}]
    if rng.random() < 0.1:
        context["controls"] = {"length": "short", "originality": None}
    return context


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tq", nargs="?", default=str(ROOT / "build" / "tq"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--conversations", type=int, default=200)
    args = parser.parse_args()
    oracle = os.path.join(os.path.dirname(os.path.abspath(args.tq)), "tests", "tools", "text_oracle")
    rng = random.Random(args.seed)
    env = jinja_environment()
    compiled = {name: env.from_string(source) for name, source in TEMPLATES.items()}
    texts, errors, requests, wanted = dict.fromkeys(TEMPLATES, 0), 0, [], []
    for _ in range(args.conversations):
        context = conversation(rng)
        for name, template in compiled.items():
            try:
                expected = template.render(**context)
                texts[name] += 1
            except Exception:
                expected, errors = None, errors + 1
            source = TEMPLATES[name].encode()
            requests.append(("T", struct.pack("=I", len(source)) + source + json.dumps(context).encode()))
            wanted.append((name, context, expected))
    for (name, context, expected), (status, body) in zip(wanted, ask(oracle, requests)):
        if expected is None:
            named = body.decode("utf-8", "replace").startswith("template line ")
            check(status != 0 and named, f"{name}: jinja2 fails, here {body[:300]!r} {context}")
            continue
        if status:
            check(False, f"{name}: {body.decode()} {context}")
            continue
        (n,) = struct.unpack_from("=I", body)
        check(body[4 + 8 * n:].decode() == expected, f"{name}:\n  ours  {body[4 + 8 * n:].decode()!r}\n  wants {expected!r}")
    for name, n in texts.items():
        check(n > args.conversations // 20, f"{name}: only {n} conversations rendered at all")
    print(f"{args.conversations} conversations through {len(TEMPLATES)} templates compared with jinja2 {jinja2.__version__}: "
          f"{sum(texts.values())} texts, {errors} errors")
    return finish()


if __name__ == "__main__":
    sys.exit(main())
